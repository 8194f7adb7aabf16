"""How commands end: 0 done, 2 for what the user can fix, 1 for the unforeseen, 130 for Ctrl-C."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hf_elhsr
from hf_elhsr import _locks
from hf_elhsr._locks import owning

PROGRAM = [sys.executable, "-m", "hf_elhsr.cli"]
MODEL = ["--model", "smollm2-demo"]
SHIPPED = Path(__file__).parents[2] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"


def started(*arguments, **options):
    """The program in a process of its own, with what it writes in pipes."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Which would write what is left to be written in the end otherwise
    pipes["env"] = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen([*PROGRAM, *(str(argument) for argument in arguments)], **pipes | options)


def test_version(run_program):
    assert run_program("--version") == (0, f"hf-elhsr {hf_elhsr.__version__}\n", "")


@pytest.mark.parametrize("json_too", [[], ["--json"]])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere", "out"], "holds no rollouts"),
        (["refit", "nowhere", "out", "--rollouts", "nowhere"], "made by `hf-elhsr train`"),
        (["sample", "out", *MODEL, "--task", "poetry", "--prompts", "2"], "Unknown task 'poetry'"),
        (["sample", "out", *MODEL, "--dtype", "int3", "--prompts", "2"], "Unknown dtype 'int3'"),
        (["evaluate", "out", *MODEL, "--head", "missing"], "neither a folder nor a repository id"),
        (["evaluate", "out", *MODEL, "--head", "h", "--plot", "p.pdf"], "as .svg or .png, not as 'p.pdf'"),
        (["tradeoff", "nowhere", "--head", "h", "--plot", "p.pdf"], "as .svg or .png, not as 'p.pdf'"),
        (["card", "nowhere"], "lacks config.json"),
        (["generate", "Hi", "--model", "./no/such/model", "--head", SHIPPED], "./no/such/model"),
        (["train", "run[/x]", "out"], "run[/x]"),
        (["sample", "out", *MODEL, "--disk-budget", "lots"], "number of bytes, as in 50GB or 800MB, got 'lots'"),
        (["train", "nowhere", "out", "--preset", "best"], "preset='best': expected one of default, paper"),
        (["train", "nowhere", "out", "--loss", "mse"], "loss='mse': expected one of binary_cross_entropy"),
        (["train", "nowhere", "out", "--patience", "0"], "patience=0: expected"),
        (["sample", "out"], "Missing option '--model'. See `hf-elhsr sample --help`."),
        (["trian"], "No such command 'trian'. Did you mean 'train'? See `hf-elhsr --help`."),
        (["train", "a", "b", "--preset"], "Option '--preset' requires an argument."),
        (["sample", "out", *MODEL, "--n", "1"], "Invalid value for '--n'"),
    ],
)
def test_what_the_user_can_fix_is_one_line(tmp_path, monkeypatch, run_program, arguments, message, json_too):
    monkeypatch.chdir(tmp_path)
    # Before what lacks its value, in which it would end as one
    code, out, err = run_program(*arguments[:1], *json_too, *arguments[1:])
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["evaluation/test.json", "tradeoff/test.json", "training.json"])
def test_a_damaged_record_of_a_head_is_one_line(tmp_path, run_program, name):
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "head"))
    (folder / name).write_text("{}")
    code, out, err = run_program("card", folder)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert str(folder / name) in err


def own_verifier(tiny, folder, code):
    """Options for prompts whose verifier is this code; without the warning that the model is a folder."""
    (folder / "mine.py").write_text(code)
    return ["--base-model", "org/tiny", "--task", tiny / "mine.jsonl", "--verifier", f"{folder / 'mine.py'}:check"]


def test_an_error_has_no_effect_on_a_terminal(tiny, tiny_options, tmp_path, run_program):
    task = own_verifier(tiny, tmp_path, "raise ValueError('a\\x1b]0;title\\x07b [bold]\\nc')")
    code, out, err = run_program("sample", tmp_path / "out", *tiny_options, *task)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith("mine.py' cannot be loaded, at line 1: ValueError: a⟨U+001B⟩]0;title⟨U+0007⟩b [bold] c\n")


def test_an_unforeseen_error_has_a_traceback(tiny_task, tmp_path, run_program, monkeypatch):
    # Python itself ends with 1 and the traceback where an exception leaves main
    def broken(*args, **kwargs):
        raise RuntimeError("of the program")

    monkeypatch.setattr("hf_elhsr.rollouts.sampling.labels", broken)
    with pytest.raises(RuntimeError, match="of the program"):
        run_program("sample", tmp_path / "out", *tiny_task, "--prompts", 4)


def test_ctrl_c_and_the_same_command_again(tiny, tiny_options, tmp_path, run_program):
    # The verifier waits in the second batch, when the first, of sixteen prompts, is on disk
    code = (
        "import os, time\n"
        "calls = 0\n"
        "def check(completion, answer):\n"
        "    global calls\n"
        "    calls += 1\n"
        f"    if calls > 4 * 16 and not os.path.exists({str(tmp_path / 'waited')!r}):\n"
        f"        open({str(tmp_path / 'waited')!r}, 'w').close()\n"
        "        time.sleep(60)\n"
        "    return len(completion) % 2 == 0\n"
    )
    task = own_verifier(tiny, tmp_path, code)
    arguments = ["sample", tmp_path / "out", *tiny_options, *task, "--prompts", 32, "--json"]
    process = started(*arguments)
    while not (tmp_path / "waited").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "Stopped. The same command resumes from there.\n"
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.safetensors")}
    assert kept
    code, out, _ = run_program(*arguments)
    assert (code, json.loads(out)["rollouts"]) == (0, 128)
    assert kept.items() <= {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.safetensors")}.items()


def test_ctrl_c_in_a_command_that_starts_again(tiny, tiny_options, run_program, monkeypatch):
    # It comes while the prompt is read
    class Interrupted:
        def read(self):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys, "stdin", Interrupted())
    assert run_program("generate", "-", *tiny_options, "--head", tiny / "head") == (
        130,
        "",
        "Stopped. The same command starts again.\n",
    )


def test_a_closed_pipe(tiny, tiny_options):
    reader, writer = os.pipe()
    os.close(reader)
    generate = ["generate", "w7 w8", *tiny_options, "--head", tiny / "head"]
    # Text as it is, a table by rich, JSON
    processes = [started(*generate, *more, stdout=writer) for more in ([], ["--all"], ["--json"])]
    os.close(writer)
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        process = started("heads", "--help", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == (
        "Error: The disk is full ([Errno 28] No space left on device): make room, and run the same command again.\n"
    )


def test_a_folder_in_use_is_refused_before_a_model_is_loaded(tmp_path, monkeypatch, run_program):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_locks, "PATIENCE", 0.0)
    with owning(tmp_path / "out"), owning(tmp_path / "head"):
        for arguments in (
            ["sample", "out", "--model", "missing"],
            ["evaluate", "out", "--model", "missing", "--head", "missing"],
            ["evaluate", "new", "--model", "missing", "--head", "missing", "--numbers", "head/evaluation/test.json"],
            ["train", "missing", "head"],
            ["convert", "missing.pt", "head", "--model", "missing"],
        ):
            code, out, err = run_program(*arguments)
            assert (code, out) == (2, "")
            assert f"is in use by process {os.getpid()} on " in err
            assert err.count("\n") == 1
