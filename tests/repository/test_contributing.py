"""CONTRIBUTING.md names files and registries that exist, and its layers are those that import-linter checks."""

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
ROWS = [line.strip("| ").split(" | ") for line in TEXT.splitlines() if line.startswith("| a")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_its_files_and_registries_exist(row):
    assert len(row) == 4
    files = re.findall(r"`([\w/.]+\.(?:py|toml)|[\w/]+/)`", " ".join(row[1:]))
    assert any(file.startswith(("hf_elhsr/", "tests/")) for file in files)
    for file in files:
        assert (ROOT / file).exists(), file
    sources = "".join((ROOT / file).read_text() for file in files if file.endswith(".py"))
    for registry in re.findall(r"`([A-Z_]{4,})`", row[2]):
        assert re.search(rf"^{registry}\b.*= ", sources, re.MULTILINE), registry


def test_everything_that_can_be_added_is_there():
    extensions = {row[0].removeprefix("an ").removeprefix("a ") for row in ROWS}
    assert extensions == {
        "loss",
        "signal",
        "head architecture",
        "decision rule",
        "task",
        "CLI command",
        "engine that samples and scores",
        "column of the card",
        "version of transformers",
    }


def test_the_layers_are_those_that_are_checked():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    contract = setup["importlinter:contract:one-way"]["layers"]
    checked = [name.strip().removeprefix("hf_elhsr.") for name in re.split(r"[|\n]", contract) if name.strip()]
    rooms = [name for name in checked if "." not in name]
    drawn = re.search(r"^    cli .*?\n\n", TEXT, re.MULTILINE | re.DOTALL)[0]
    # Without what each layer is for
    shown = "\n".join(line.strip().partition("   ")[0] for line in drawn.splitlines())
    places = [re.search(rf"(?<![\w.]){name}(?![\w.])", shown) for name in rooms if name != "auto_classes"]
    assert None not in places
    assert [place.start() for place in places] == sorted(place.start() for place in places)


@pytest.mark.parametrize("name", ["FORMAT_VERSION", "MIGRATIONS"])
def test_the_names_of_the_format_exist(name):
    assert f"`{name}`" in TEXT
    assert re.search(rf"^{name}\b.*= ", (ROOT / "hf_elhsr/head/configuration_elhsr.py").read_text(), re.MULTILINE)
