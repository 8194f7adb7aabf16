"""Another command is one function and one registration: here from outside the package."""

from typing import Annotated

import pytest
import typer

from hf_elhsr.cli.app import app
from hf_elhsr.cli.options import Json
from hf_elhsr.cli.result import show


def count(
    text: Annotated[str, typer.Argument(help="What to count in.")],
    letter: Annotated[str, typer.Option(help="What to count.")] = "e",
    as_json: Json = False,
) -> None:
    """Count a letter."""
    if len(letter) != 1:
        raise ValueError(f"--letter {letter}: expected one letter.")
    show(as_json, {"count": text.count(letter)}, f"{text.count(letter)} of {letter}.")


@pytest.fixture
def registered():
    app.command()(count)
    yield
    app.registered_commands.pop()


def test_it_runs_prints_and_ends_like_the_others(registered, run_program):
    assert run_program("count", "elephants") == (0, "2 of e.\n", "")
    assert run_program("count", "elephants", "--letter", "p", "--json") == (0, '{\n  "count": 1\n}\n', "")
    assert run_program("count", "elephants", "--letter", "ph") == (2, "", "Error: --letter ph: expected one letter.\n")
    code, printed, _ = run_program("--help")
    assert code == 0
    assert "  count      Count a letter." in printed


def test_it_is_removed_afterwards(run_program):
    code, _, err = run_program("count", "elephants")
    assert code == 2
    assert "No such command 'count'" in err
