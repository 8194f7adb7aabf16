"""chosen_letter: the letter that a completion gives as its answer to a multiple-choice question."""

import re
from collections.abc import Iterable, Iterator

LETTERS = "ABCDEFGHIJ"

# The patterns are for texts without repeated blanks, and their repetitions have bounds: otherwise a text that repeats
# itself would take time quadratic in its length, or worse.

# Capitals only, as "a" is an article. "A" and "I" are words as well, unless the next word is one that follows a choice
_GOES_ON = r"(?:and|as|based|because|but|by|due|followed|for|from|given|is|not|since|so|was|which|with)\b"
_BARE = rf"(?<!\w)(?<!\w')(?:[AI](?!\s(?!{_GOES_ON})[a-z])|[B-HJ])(?!\w|'\w|:\w|\s?[+*/^\u00d7<>]\s?[\w(])"
# In these, a lower-case letter can only be a choice
_MARKED = r"(?<!\w)[(\[]\s?[A-Ja-j]\s?[)\]]"
# In "C or D", neither is chosen
_LETTER = rf"(?<!\bor )(?P<letter>{_MARKED}|{_BARE})(?!\)?\sor\s[(\[]?[A-J]\b)"

_NOUN = r"\b(?<!wrong )(?<!incorrect )(?:answer|option|choice|letter|ending|solution)\b"
_IS = r"(?:\b(?:is|was|(?:must|would|should|has to) be)\b|:|>|\s[-\u2013\u2014]\s)"
_FILLERS = "the|option|choice|answer|letter|ending|therefore|thus|then|clearly|indeed|likely|most|definitely"
_FILL = rf"(?:\s?\b(?:{_FILLERS})\b){{0,5}}[\s:\"']{{0,9}}"
_RIGHT = r"(?:correct|answer|choice|option|right(?!-|\s(?:angle|after|before|behind|next|of|hand|side|triangle)))\b"

#: A letter stated as the answer.
_STATED = (
    # \boxed{C}, \boxed{(C)}, \boxed{C) 21}
    re.compile(r"\\(?:boxed|fbox)\s?\{\s?\(?(?P<letter>[A-Ja-j])\s?[}).:,]"),
    # The answer to this is therefore option C; Answer: C; <answer>C</answer>
    re.compile(rf"(?i:{_NOUN}[^.\n:;,>]{{0,40}}?{_IS}{_FILL}){_LETTER}"),
    # Answer: c
    re.compile(rf"(?i:{_NOUN}(?:(?: is)?:\s?|\sis\s(?![ai])))(?P<letter>[a-j])[.)]?\s?$", re.MULTILINE),
    # C is the correct option
    re.compile(
        rf"{_LETTER}\)?\s(?:is|was|must be)\s(?:(?:the|our|my|most|best|only|clearly|indeed|also)\s){{0,4}}{_RIGHT}"
    ),
)
#: A letter chosen in passing.
_CHOSEN = (
    re.compile(
        rf"(?i:(?:{_NOUN}|\b(?:choos|pick|select)(?:e|ed|ing)?\b|\bchose\b|\bgo(?:ing)? with\b)\s{_FILL}){_LETTER}"
    ),
    # At the end of a line, as in: so it must be B.
    re.compile(
        rf"(?i:\b(?:so|thus|hence|therefore|is|be|it's|say)\b|[-=]>)(?i:{_FILL}){_LETTER}[.)!]*\s?$", re.MULTILINE
    ),
    # A line with only a letter; **C**, which has become [C] by now; and a completion of only a lower-case letter
    re.compile(r"^\s?\(?(?P<letter>[A-J])[).:]*\s?$", re.MULTILINE),
    re.compile(r"(?P<letter>\[[A-J]\])"),
    re.compile(r"\A\s?\(?(?P<letter>[a-j])[).]*\s?\Z"),
)
#: A letter that is mentioned, alone or in a list: (C); and at the start of a line: C) 21, or C because.
_MENTIONED = (
    re.compile(rf"(?P<letter>{_MARKED})"),
    re.compile(r"^\s?(?P<letter>[A-J])(?:[).:,](?=\s|$)|\s(?:because|since)\b)", re.MULTILINE),
)

_OTHERS = r"(?:\s?(?:,|and|nor|&){1,2}\s?(?:(?i:option|choice)s?\s)?[(\[]?[A-J]\b[)\]]?){0,9}"
_DENIED_AFTER = re.compile(
    rf"[)\]]?{_OTHERS},?\s?(?:(?:which|that)\s)?"
    r"(?:(?:is|are|was|were|can|could|does|do|would|must|should)(?:n't|\s?not)\b"
    r"|(?:is|are|was|were)\s(?:\w+\s)?(?:wrong|incorrect|false|impossible|implausible|out|excluded|eliminated|too)\b"
    r"|(?:fails?|contradicts?|makes no)\b)"
)
_DENIED_BEFORE = re.compile(
    r"(?i:\b(?:not|cannot be|eliminate|exclude|discard|reject|rul(?:e|ing) out|neither|nor|except|unlike|than|if"
    r"|whether)|n't|\b(?:wrong|incorrect) (?:answer|option|choice))(?:\s(?:be|choose|pick|select|the)){0,3}\s$"
)

_BOLD = re.compile(r"(\*\*|__) ?\(?([A-J])[).:]* ?\1")
_MACRO = re.compile(r"\\(?:text|textbf|mathrm|mathbf) ?\{ ?([^{}]{0,80}?) ?\}")
_DECORATION = re.compile(r"[*`$]|\\[()\[\]]")
_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")


def chosen_letter(completion: str, letters: str = LETTERS) -> str | None:
    """The letter last stated as the answer; otherwise the one last chosen; otherwise the only one mentioned.

    Options that the completion rules out do not count.

    Args:
        completion: The text.
        letters: The letters of the problem's options; others do not count.
    """
    text = re.sub(r"(?: ?\n ?)+", "\n", re.sub(r"[^\S\n]+", " ", completion.translate(_QUOTES)))
    text = _DECORATION.sub("", _BOLD.sub(r"[\2]", _MACRO.sub(r"\1", text)))
    for patterns in (_STATED, _CHOSEN):
        if found := sorted(_found(patterns, text, letters)):
            return found[-1][1]
    mentioned = {letter for _, letter in _found(_MENTIONED, text, letters)}
    return mentioned.pop() if len(mentioned) == 1 else None


def _found(patterns: Iterable[re.Pattern[str]], text: str, letters: str) -> Iterator[tuple[int, str]]:
    """Positions of all matches, and their letters in capitals."""
    for pattern in patterns:
        for match in pattern.finditer(text):
            letter = match["letter"].strip("()[] \n").upper()
            denied = _DENIED_AFTER.match(text, match.end("letter")) or _DENIED_BEFORE.search(
                text, max(0, match.start() - 40), match.start()
            )
            if letter in letters and not denied:
                yield match.start("letter"), letter
