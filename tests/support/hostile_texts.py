"""500 texts that would do something, if they were taken for more than text; the same ones every time."""

import itertools
import random

_MARKUP = [
    "<script>document.title='run'</script>",
    "<img src=x onerror=\"document.title='run'\">",
    "<svg onload=document.title='run'>",
    "<iframe src='http://evil.example/'></iframe>",
    "<link rel=stylesheet href=//evil.example/a.css>",
    "<style>*{display:none}</style>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "<base href='http://evil.example/'>",
    "<a href='javascript:document.title=1'>click</a>",
    "<form action=http://evil.example/><input autofocus onfocus=document.title=1>",
    "<details open ontoggle=document.title=1>",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<?xml version='1.0'?>",
    "<template>",
    "<plaintext>",
]
_CLOSING = [
    f"</{name}>" for name in ("style", "title", "textarea", "script", "span", "div", "svg", "td", "body", "html")
]
_ATTRIBUTES = [
    '" onmouseover="document.title=1',
    "' onclick='document.title=1",
    "` onload=`",
    '"><b>',
    "'/>",
    "=",
    "\\",
]
_ENTITIES = [
    "&lt;script&gt;",
    "&#60;b&#62;",
    "&#x3c;b",
    "&amp;lt;",
    "&nbsp",
    "&#0;",
    "&",
    "&quot;",
    "{{ 7 * 7 }}",
    "{% raw %}",
]
_CONSOLE = ["[bold red]", "[/]", "[link=http://evil.example]x[/link]", "\\[b]", ":skull:", "%s %n"]
_ESCAPES = [
    "\x1b[31mred\x1b[0m",
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07",
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1bPq#0\x1b\\",
    "\x1b[?1049h",
    "\x9b31m",
    "\x9d0;title\x9c",
    "\x1b",
    "\x08\x08\x08",
    "\r",
    "\x0b\x0c",
    "\x07",
    "\x7f",
    "\x85",
]
_UNSEEN = [
    "\x00",
    "\u202e",
    "\u202d",
    "\u2066",
    "\u2067\u2069",
    "\u200f",
    "\u061c",
    "\u200b",
    "\u200d",
    "\ufeff",
    "\u00ad",
]
_UNSEEN += [
    "\u2028",
    "\u2029",
    "\ud800",
    "\udfff",
    "\udc80",
    "\ufffe",
    "\U000e0041",
    "\ue000",
    "\u2060",
    "\u3164",
    "\u034f",
]
_LONG = [
    "A" * 5000,
    "\u0301" * 200,
    "\u05d0\u05d1" * 300,
    "\U0001f469\u200d" * 50,
    " " * 400,
    "\n" * 60,
    "<" * 500,
    "\t" * 40,
]

KINDS = (_MARKUP, _CLOSING, _ATTRIBUTES, _ENTITIES, _CONSOLE, _ESCAPES, _UNSEEN, _LONG)


def hostile_texts(count: int = 500) -> list[str]:
    """Each piece alone, then pairs of kinds, then longer mixtures."""
    generator = random.Random(0)
    pieces = list(itertools.chain(*KINDS))
    pairs = [generator.choice(a) + generator.choice(b) for a, b in itertools.permutations(KINDS, 2) for _ in range(3)]
    texts = pieces + pairs
    while len(texts) < count:
        chosen = generator.choices(pieces, k=generator.randint(2, 6))
        texts.append(generator.choice(["", " ", "word", "\u05d0"]).join(chosen))
    return texts[:count]
