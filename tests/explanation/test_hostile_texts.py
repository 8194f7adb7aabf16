"""500 hostile strings pass through page and terminal without effect."""

import base64
import hashlib
import io
import json
import re

import pytest
from hostile_texts import KINDS, hostile_texts
from made_explanations import explanation_of
from page_structure import Structure
from rich.console import Console

from hf_elhsr.cli.terminal_tables import candidates_table
from hf_elhsr.explanation.texts import print_text, visible, visible_pieces

TEXTS = hostile_texts()
HOSTILE, HARMLESS = explanation_of(TEXTS), explanation_of(["word"] * len(TEXTS))


@pytest.fixture(scope="module")
def page():
    return HOSTILE.to_html()


def printable(text):
    return all(character.isprintable() or character == "\n" for character in text)


def test_there_are_500_of_every_kind():
    assert len(TEXTS) == 500
    assert all(any(piece in text for text in TEXTS) for kind in KINDS for piece in kind)


def test_the_page_is_built_as_for_harmless_texts(page):
    hostile = Structure(page)
    harmless = Structure(HARMLESS.to_html())
    assert hostile.structure == harmless.structure
    assert ("script", []) not in hostile.structure
    # Each text is present and readable
    shown = [text.replace("\n", "↵\n").replace("\t", "⇥\t") for text in map(visible, TEXTS)]
    assert len(hostile.texts["span", "t"]) >= 2 * len(TEXTS)
    assert hostile.texts["span", "t"][-len(TEXTS) :] == shown
    assert hostile.texts["div", "prompt"][1:] == [visible(text) for text in TEXTS]


def test_the_page_has_no_invisible_characters_and_requests_nothing(page):
    assert printable(page.replace("\t", " "))
    page.encode("utf-8")
    structure = Structure(page).structure
    names = {name for entry in structure if isinstance(entry[1], list) for name, _ in entry[1]}
    assert not names & {"src", "href", "srcset", "action", "style", "data"}
    assert not any(name.startswith("on") for name in names)
    elements = [entry for entry in structure if not isinstance(entry, str)]
    [policy] = [dict(given)["content"] for tag, given in elements if tag == "meta" and "http-equiv" in dict(given)]
    [style] = re.findall("<style>(.*?)</style>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("shown", [HOSTILE, candidates_table(TEXTS, [0.0] * len(TEXTS), 0)], ids=["page", "table"])
@pytest.mark.parametrize("colours", [None, "truecolor"])
def test_the_terminal_gets_nothing_but_text_and_styles(colours, shown):
    file = io.StringIO()
    console = Console(file=file, width=100, color_system=colours, force_terminal=colours is not None)
    console.print(shown)
    printed = file.getvalue()
    styles = r"\x1b\[[0-9;]*m"
    assert bool(re.search(styles, printed)) == (colours is not None)
    plain = re.sub(styles, "", printed)
    assert printable(plain)
    # Markup is plain text, and invisible characters are named
    assert "[bold red]" in plain
    assert "⟨U+001B⟩]0;title⟨U+0007⟩" in plain
    assert "⟨U+202E⟩" in plain
    assert ":skull:" in plain


def test_a_table_of_candidates_has_each_text_on_one_line():
    file = io.StringIO()
    texts = ["\n a \n\n\tb ", ":warning: [bold]x[/] \\[y] \\\\", "c\x0bd\x85e\r", ""]
    Console(file=file, width=200).print(candidates_table(texts, [4.0, 3.0, 2.0, 1.0], 0))
    cells = [line.split("│")[4].strip() for line in file.getvalue().splitlines() if line.startswith("│")]
    assert cells == [
        "a b <- winner",
        ":warning: [bold]x[/] \\[y] \\\\",
        "c⟨U+000B⟩d⟨U+0085⟩e⟨U+000D⟩",
        "",
    ]


def test_printed_in_a_notebook(monkeypatch):
    shown, file = [], io.StringIO()
    monkeypatch.setattr("rich.jupyter.display", lambda segments, plain: shown.append(plain))
    for text in TEXTS:
        print_text(Console(file=file, width=100, color_system=None, force_jupyter=True), text)
    assert file.getvalue() == ""
    assert len(shown) == len(TEXTS)
    assert all(printable(plain.replace("\t", " ")) for plain in shown)


def test_a_notebook_gets_one_frame(page):
    [(tag, attributes), end] = Structure(HOSTILE._repr_html_()).structure
    assert (tag, end) == ("iframe", "/iframe")
    assert [name for name, _ in attributes] == ["title", "sandbox", "srcdoc", "style"]
    assert dict(attributes)["srcdoc"] == page


def test_json_keeps_the_texts_in_ascii():
    written = HOSTILE.to_json()
    assert written.isascii()
    candidates = json.loads(written)["prompts"][0]["candidates"]
    assert [token["text"] for candidate in candidates for token in candidate["tokens"]] == TEXTS


def test_visible_characters_stay_as_they_are():
    plain = "Ça va? 日本語 שלום ٣ é e\u0301 🙂 x²\n\t<b> {}"
    assert visible(plain) == plain
    assert visible("a\x00\u202e\ud800\r") == "a⟨U+0000⟩⟨U+202E⟩⟨U+D800⟩⟨U+000D⟩"


def test_marks_do_not_pile_up_across_pieces():
    assert visible_pieces(["e\u0301\u0301", "\u0301\u0301", "x\u0301"]) == [
        "e\u0301\u0301",
        "\u0301⟨U+0301⟩",
        "x\u0301",
    ]
