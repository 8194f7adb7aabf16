"""The documents lead to each other and to what there is."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def anchors(page):
    """Of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_names_every_page_and_every_example():
    index = (DOCS / "README.md").read_text()
    for page in [*PAGES, *DOCS.glob("*/*.md")]:
        assert page.name == "README.md" or f"({page.relative_to(DOCS)})" in index, page
    for example in [*(ROOT / "examples").glob("*.py"), *(ROOT / "examples").glob("*.ipynb")]:
        assert f"(../examples/{example.name})" in index, example


def test_files_that_are_named_are_there():
    """Names of the package's files in how_it_works.md."""
    named = re.findall(r"`((?:\w+/)*\w+\.py)`", (DOCS / "how_it_works.md").read_text())
    assert len(named) > 10
    for name in named:
        assert (ROOT / "hf_elhsr" / name).is_file(), name


def test_what_make_docs_builds_is_ignored():
    assert "docs/reference/build.py docs/_build" in (ROOT / "Makefile").read_text()
    assert "/docs/_build/" in (ROOT / ".gitignore").read_text().splitlines()


def test_markdown_leaves_the_mathematics_alone():
    """GitHub takes a backslash before punctuation in $...$ for an escape of its own; in blocks it does not."""
    text = (DOCS / "how_it_works.md").read_text()
    assert "$$" not in text
    assert [line for line in text.splitlines() if line.count("$") % 2] == []
    formulas = re.findall(r"\$([^$\n]+)\$", text)
    assert len(formulas) > 50
    assert [formula for formula in formulas if re.search(r"\\[^A-Za-z]|\|", formula)] == []
