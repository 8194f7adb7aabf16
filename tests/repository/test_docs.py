"""The pages of the documentation link to each other, and what they name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
HOW_IT_WORKS = DOCS / "explanation" / "how_it_works.md"


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_names_every_page_and_every_example():
    index = (DOCS / "README.md").read_text()
    for page in DOCS.rglob("*.md"):
        assert page.name == "README.md" or f"({page.relative_to(DOCS)})" in index, page
    for example in [*(ROOT / "examples").glob("*.py"), *(ROOT / "examples").glob("*.ipynb")]:
        assert f"(../examples/{example.name})" in index, example


def test_the_files_of_the_package_that_it_names_exist():
    named = re.findall(r"`((?:\w+/)*\w+\.py)`", HOW_IT_WORKS.read_text())
    assert len(named) > 10
    for name in named:
        assert (ROOT / "hf_elhsr" / name).is_file(), name


def test_what_make_docs_builds_is_not_committed():
    assert "docs/reference/build.py docs/_build" in (ROOT / "Makefile").read_text()
    assert "/docs/_build/" in (ROOT / ".gitignore").read_text().splitlines()


def test_markdown_leaves_the_mathematics_alone():
    """GitHub reads a backslash before punctuation in $...$ as an escape of its own; in blocks it does not."""
    text = HOW_IT_WORKS.read_text()
    assert "$$" not in text
    assert [line for line in text.splitlines() if line.count("$") % 2] == []
    formulas = re.findall(r"\$([^$\n]+)\$", text)
    assert len(formulas) > 50
    assert [formula for formula in formulas if re.search(r"\\[^A-Za-z]|\|", formula)] == []
