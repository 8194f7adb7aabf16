"""Progress bars are drawn only in a terminal, where they disappear when they are done."""

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


def test_in_a_terminal_they_disappear_when_done(tiny_task, tmp_path):
    terminal, child_end = pty.openpty()
    # A new terminal has no size, and so no room for a bar
    termios.tcsetwinsize(child_end, (24, 80))
    process = sample(tiny_task, tmp_path / "rollouts", child_end)
    os.close(child_end)
    written = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            # Linux's error for a terminal that no process has open any more
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


def test_none_are_drawn_in_a_pipe(tiny_task, tmp_path, run_program):
    code, out, err = run_program("sample", tmp_path / "rollouts", *tiny_task, *QUIET, "--prompts", 12)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1


def test_transformers_switches_our_own_bars(monkeypatch):
    from hf_elhsr.rollouts.sampling import tqdm

    stream = io.StringIO()
    monkeypatch.setattr(logging, "_tqdm_active", True)
    assert list(tqdm(range(3), file=stream)) == [0, 1, 2]
    assert "3/3" in stream.getvalue()
    monkeypatch.setattr(logging, "_tqdm_active", False)
    assert list(tqdm(range(3), file=stream)) == [0, 1, 2]
    assert stream.getvalue().count("0/3") == 1
