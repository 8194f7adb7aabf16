"""README, documentation and examples import public names alone: from hf_elhsr, or from one of its rooms."""

import ast
import importlib
import json
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"models", "tasks", "rollouts", "training", "evaluation", "explanation", "rewards", "hub"}
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.py")),
    *sorted((ROOT / "examples").glob("*.ipynb")),
]


def code_of(page):
    """The Python that a page shows or is."""
    if page.suffix == ".py":
        return page.read_text()
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text())["cells"]
        return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    blocks = re.findall(r"^ *```python\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return "\n".join(map(textwrap.dedent, blocks))


def imported(code):
    """Module and name of everything that is imported from the package; None for a module as a whole."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)


def is_public(module, name):
    """Whether documentation may show an import."""
    package, _, room = module.partition(".")
    if package != "hf_elhsr":
        return True
    return (not room or room in ROOMS) and name in importlib.import_module(module).__all__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_only_public_names_are_imported(page):
    assert [(module, name) for module, name in imported(code_of(page)) if not is_public(module, name)] == []


def test_enough_pages_show_code():
    modules = {str(page.relative_to(ROOT)): {module for module, _ in imported(code_of(page))} for page in PAGES}
    showing = {name for name, found in modules.items() if any(module.startswith("hf_elhsr") for module in found)}
    assert len(showing) > 12
    assert {"README.md", "docs/tutorial.md", "examples/demo.py", "examples/best_of_n.ipynb"} < showing


@pytest.mark.parametrize(
    "code",
    [
        "from hf_elhsr.head.loading import load_reward_head",
        "from hf_elhsr import _files",
        "from hf_elhsr._files import write_text",
        "from hf_elhsr.training import trainer",
        "import hf_elhsr.decisions.fit",
    ],
)
def test_an_import_from_inside_is_found(code):
    [(module, name)] = imported(code)
    assert not is_public(module, name)
