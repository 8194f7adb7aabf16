"""Progress bars are for a terminal: in a pipe there are none, and in a terminal nothing is left of them."""

import io
import os
import pty
import subprocess
import sys
import termios

from transformers.utils import logging

# Without it, a warning that the model is a folder
QUIET = ["--base-model", "org/tiny"]


def sample(tiny_task, folder, stderr):
    command = [sys.executable, "-m", "hf_elhsr.cli", "sample", folder, *tiny_task, *QUIET, "--prompts", 12]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=stderr, text=True)


def last_screen(text):
    """What a terminal's lines end as, of carriage returns and the escape that clears a line."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            part = part.replace("\x1b[A", "")
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return "\n".join(lines).strip()


def test_in_a_terminal_they_vanish_when_done(tiny_task, tmp_path):
    terminal, theirs = pty.openpty()
    # Of no size as it is made, which has no room for a bar
    termios.tcsetwinsize(theirs, (24, 80))
    process = sample(tiny_task, tmp_path / "rollouts", theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            # Linux's word for a terminal that nobody has open any more
            break
        if not piece:
            break
        written += piece
    os.close(terminal)
    out, _ = process.communicate(timeout=120)
    text = written.decode()
    assert process.returncode == 0
    assert "Sampling mine" in text
    assert "Loading weights" in text
    assert last_screen(text) == ""
    assert out.startswith("48 rollouts of 12 prompts in ")
    assert out.count("\n") == 1


def test_in_a_pipe_there_are_none(tiny_task, tmp_path, run_program):
    code, out, err = run_program("sample", tmp_path / "rollouts", *tiny_task, *QUIET, "--prompts", 12)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1


def test_our_own_bars_are_of_the_kind_that_transformers_switches(monkeypatch):
    from hf_elhsr.rollouts.sampling import tqdm

    stream = io.StringIO()
    monkeypatch.setattr(logging, "_tqdm_active", True)
    assert list(tqdm(range(3), file=stream)) == [0, 1, 2]
    assert "3/3" in stream.getvalue()
    monkeypatch.setattr(logging, "_tqdm_active", False)
    assert list(tqdm(range(3), file=stream)) == [0, 1, 2]
    assert stream.getvalue().count("0/3") == 1
