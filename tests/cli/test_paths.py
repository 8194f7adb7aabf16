"""Every option and argument that takes a path also takes `~` and environment variables in it."""

import json
import os
import shutil
from pathlib import Path

import pytest
import typer

from hf_elhsr.cli.app import app
from hf_elhsr.cli.paths import expanded, expanded_task

COMMANDS = typer.main.get_command(app).commands
# Text that names no file
NO_PATHS = {"prompt", "base_model", "split", "dtype", "signal", "disk_budget", "system_prompt", "template_option"}
NO_PATHS |= {"preset", "loss", "repo_id", "branch", "message", "license"}
# By the type that an argument or an option is declared with
GIVEN = {str: "~/x", Path: Path("~/x"), list[Path]: [Path("~/x")]}


def test_every_path_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    left, tried = set(), 0
    for command, one in COMMANDS.items():
        for parameter in one.params:
            given = GIVEN.get(getattr(parameter.type_descriptor, "annotation", None))
            if parameter.name in NO_PATHS or given is None:
                continue
            tried += 1
            value = given if parameter.callback is None else parameter.callback(None, parameter, given)
            if str(value[0] if isinstance(value, list) else value) != "/home/me/x":
                left.add((command, parameter.name))
    # Both are names on the Hub
    assert left == {("heads", "model"), ("heads", "task")}
    assert tried > 30


@pytest.fixture
def home(tiny, tmp_path, monkeypatch):
    """A home with a head and prompts, and an empty working directory."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    shutil.copytree(tiny / "head", tmp_path / "home" / "head")
    for name in ("mine.jsonl", "mine.py"):
        shutil.copy(tiny / name, tmp_path / "home")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WORK", str(tmp_path / "home" / "work"))
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert list((tmp_path / "here").iterdir()) == []


def test_paths_in_commands(home, tiny_options, run_program):
    own = ["--task=~/mine.jsonl", "--verifier=$HOME/mine.py:check", "--prompts", 2, "--base-model", "org/name"]
    code, out, err = run_program("sample", "$WORK/rollouts", *tiny_options, *own, "--json")
    assert (code, err) == (0, ""), err
    assert json.loads(out)["folder"] == str(home / "work" / "rollouts")
    files = ["--html=~/why.html", "--numbers=${WORK}/why.json"]
    code, _, err = run_program("inspect", "w7 w8", *tiny_options, "--head=~/head", *files)
    assert (code, err) == (0, ""), err
    assert (home / "why.html").is_file()
    assert (home / "work" / "why.json").is_file()


@pytest.mark.parametrize(
    ("path", "message"),
    [("~nobody-of-this-name/x", "names no user's home: write ./ before"), ("$HOEM/x", "variable $HOEM is not set")],
)
def test_what_cannot_be_expanded_is_refused(home, tiny_options, run_program, path, message):
    code, _, err = run_program("generate", "w7", *tiny_options, "--head", path)
    assert code == 2
    assert message in err


def test_what_exists_keeps_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("~", "~backup", "$HOEM"):
        (tmp_path / name).mkdir()
        assert expanded(Path(name)) == Path(name)
    assert expanded("org/name@revision") == "org/name@revision"
    assert expanded("./~x") == "./~x"
    assert expanded(None) is None


def test_files_after_a_tasks_name(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded_task("gsm8k:~/rows.jsonl") == "gsm8k:/home/me/rows.jsonl"
    assert expanded_task("~/p.jsonl") == "/home/me/p.jsonl"
    assert expanded_task("reasoning_gym:chain_sum:max_terms=3") == "reasoning_gym:chain_sum:max_terms=3"
    assert expanded([Path("~/a"), Path("b")]) == [Path("/home/me/a"), Path("b")]
    assert os.path.basename(expanded_task("arithmetic")) == "arithmetic"
