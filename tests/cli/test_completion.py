"""What a shell offers when Tab is pressed."""

import os
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from hf_elhsr.cli.app import app
from hf_elhsr.head.configuration_elhsr import SIGNALS
from hf_elhsr.training import LOSSES, PRESETS


def completions(line):
    """The completions that bash receives for a line whose last word is being typed."""
    words = line.split(" ")
    asked = {"_HF_ELHSR_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    result = CliRunner().invoke(app, [], env=asked, prog_name="hf-elhsr")
    assert result.exit_code == 0
    return result.stdout.split()


def test_commands():
    commands = completions("hf-elhsr ")
    assert {"sample", "train", "evaluate", "generate", "inspect", "card"} <= set(commands)
    assert set(completions("hf-elhsr tra")) == {"train", "tradeoff"}


def test_options():
    assert completions("hf-elhsr sample out --max") == ["--max-new-tokens"]
    assert set(completions("hf-elhsr train r o --p")) == {"--preset", "--prompts", "--prompts-per-batch", "--patience"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train r o --preset ", set(PRESETS)),
        ("train r o --loss ", set(LOSSES)),
        ("train r o --loss h", {"hinge"}),
        ("sample o --signal ", set(SIGNALS)),
        ("sample o --signal lo", {"logits"}),
        ("evaluate o --dtype b", {"bfloat16"}),
        ("sample o --task a", {"arithmetic", "aqua_rat"}),
        ("evaluate o --task r", {"reasoning_gym:"}),
        # A file: bash itself completes it
        ("sample o --task my", set()),
    ],
)
def test_values(line, expected):
    assert set(completions(f"hf-elhsr {line}")) == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_in_bash(tmp_path):
    program = tmp_path / "hf-elhsr"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m hf_elhsr.cli "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(_HF_ELHSR_COMPLETE=source_bash hf-elhsr)"\n'
        "COMP_WORDS=(hf-elhsr train r o --loss h); COMP_CWORD=5\n"
        '"$(complete -p hf-elhsr | sed "s/.*-F \\([^ ]*\\).*/\\1/")" hf-elhsr\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", "--norc", "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=180)
    assert (result.stdout, result.stderr) == ("hinge\n", "")
