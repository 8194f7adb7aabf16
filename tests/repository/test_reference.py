"""The API reference is built without a warning, and has every public name with its docstring."""

import importlib
import inspect
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# One page for each
MODULES = (
    "hf_elhsr",
    "hf_elhsr.models",
    "hf_elhsr.tasks",
    "hf_elhsr.rollouts",
    "hf_elhsr.training",
    "hf_elhsr.evaluation",
    "hf_elhsr.explanation",
    "hf_elhsr.rewards",
    "hf_elhsr.hub",
)


class Text(HTMLParser):
    """The text of a page without its markup."""

    def __init__(self, page):
        super().__init__()
        self.parts = []
        self.feed(page)

    def handle_data(self, data):
        self.parts.append(data)

    def __str__(self):
        return " ".join("".join(self.parts).split())


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    build = [sys.executable, str(ROOT / "docs" / "reference" / "build.py"), str(folder)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    return folder


def page(reference, module):
    return (reference / f"{module.replace('.', '/')}.html").read_text()


def sections(text):
    """The sections of a page, by their anchors."""
    parts = re.split(r'<section id="([^"]+)">', text)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def plain(docstring):
    """The first line of a docstring, as the page shows it."""
    return " ".join(re.sub(r"\[`|`\]|`|\*", "", docstring.strip().partition("\n")[0]).split())


def test_every_public_name_is_there_with_its_docstring(reference):
    for module in MODULES:
        own = importlib.import_module(module)
        found = sections(page(reference, module))
        for name in own.__all__:
            assert name in found, (module, name)
            value = getattr(own, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                # Not what a dataclass or a protocol generates without one
                assert value.__doc__, (module, name)
                assert not value.__doc__.startswith(f"{name}("), (module, name)
                assert plain(value.__doc__) in str(Text(found[name])).replace("*", ""), (module, name)


def test_arguments_are_lists_and_names_are_links(reference):
    head = sections(page(reference, "hf_elhsr"))["ElhsrRewardHead"]
    score = head.partition('id="ElhsrRewardHead.score"')[2].partition('<div id="')[0]
    assert "<li><strong>completion_mask:</strong>" in score
    assert re.search(r"<h6[^>]*>Raises:</h6>", score)
    assert '<a href="#ElhsrConfig' in head
    # Neither markup that was not understood nor docstrings of other packages' constructors
    assert not re.search(r"\[<code>|<code>~", page(reference, "hf_elhsr"))
    assert "Initialize internal Module state" not in page(reference, "hf_elhsr")


def test_pages_link_to_each_other(reference):
    for module in MODULES:
        file = reference / f"{module.replace('.', '/')}.html"
        links = re.findall(r'href="([^"#:]+\.html)"', file.read_text())
        targets = {(file.parent / link).resolve() for link in links}
        assert {(reference / f"{other.replace('.', '/')}.html").resolve() for other in MODULES} - {file} <= targets
        assert all(target.is_file() for target in targets)
