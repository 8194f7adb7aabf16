"""The help is sufficient, and the same option has the same meaning in every command."""

import re
from collections import defaultdict

import pytest
import typer

from hf_elhsr.cli.app import app

COMMANDS = typer.main.get_command(app).commands


def test_every_command_has_a_line(run_program):
    code, printed, err = run_program("--help")
    assert (code, err) == (0, "")
    listed = re.findall(r"^  (\w+)  +\S.*[^.]\.$", printed.partition("Commands:")[2], re.MULTILINE)
    assert listed == list(COMMANDS)
    assert run_program() == (0, printed, "")


def test_the_path_in_the_help_exists(run_program):
    _, printed, _ = run_program("--help")
    lines = re.sub(r"\\\n\s+", "", printed).splitlines()
    path = [line.split() for line in lines if line.startswith("    hf-elhsr ")]
    assert [command for _, command, *_ in path] == ["sample", "train", "evaluate", "generate", "card", "publish"]
    for _, command, *arguments in path:
        known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= known


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_are_shown(command, run_program):
    code, printed, _ = run_program(command, "--help")
    assert code == 0
    text = " ".join(printed.split())
    for parameter in COMMANDS[command].params:
        if parameter.default not in (None, False) and not parameter.required:
            help_text = " ".join(parameter.help.split())
            assert re.search(re.escape(help_text) + rf" \[default: {re.escape(str(parameter.default))}[\];]", text), (
                parameter.name
            )


def test_the_same_option_has_the_same_help():
    helps = defaultdict(set)
    for command in COMMANDS.values():
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    helps[option].add((parameter.name, parameter.help))
    assert {option: texts for option, texts in helps.items() if len(texts) > 1} == {}


def test_every_command_has_json():
    assert [name for name, command in COMMANDS.items() if all("--json" not in p.opts for p in command.params)] == []
