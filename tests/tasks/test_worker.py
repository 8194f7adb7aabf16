"""What a verifier does to its process costs one completion its label at most, and nothing outside."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import odd_verifiers
import pytest

from hf_elhsr.tasks import JsonLinesTask, VerifierFailure, find_task, verify, worker
from hf_elhsr.tasks.verification import verdicts

VERIFIERS = Path(odd_verifiers.__file__)
# Long enough for a process to start on a busy machine, and to be waited for in tests
LIMIT = 1.0
TEXT = "right"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text("".join(json.dumps({"question": f"Say {i}", "answer": TEXT}) + "\n" for i in range(9)))
    return file


@pytest.fixture(scope="module")
def odd(rows):
    return find_task(str(rows), f"{VERIFIERS}:check")


def problem_of(task):
    return task.problems("train", 1)[0]


def labelled(task, *completions, limit=30.0):
    problem = problem_of(task)
    return verdicts(task, [(problem, completion) for completion in completions], limit)


def test_what_ends_the_process_costs_one_label(odd, capfd):
    """Before and after each are completions that keep theirs."""
    asked = [text for odd_one in odd_verifiers.FAILURES for text in (TEXT, odd_one, "wrong")]
    found = labelled(odd, *asked)
    for (first, failed, last), name in zip(zip(*[iter(found)] * 3, strict=True), odd_verifiers.FAILURES, strict=True):
        assert (first.label, last.label) == (True, False), name
        assert failed.label is None
        assert failed.failure.startswith(f"Problem {problem_of(odd).id!r}: {odd_verifiers.FAILURES[name]}"), name
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("late", odd_verifiers.LATE)
def test_the_time_limit_holds_whatever_the_verifier_does(odd, late):
    """Signals that it swallows, and C code that handles none, included."""
    labelled(odd, TEXT)
    found = labelled(odd, late, TEXT, limit=LIMIT)
    assert found[0].failure.endswith(f"no label after {LIMIT:g} s.")
    assert found[1].label is True
    with pytest.raises(VerifierFailure, match=r"no label after 0.1 s"):
        verify(odd, problem_of(odd), late, time_limit=0.1)


def test_programs_that_a_verifier_started_end_with_it(rows, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"question": "three", "answer": str(tmp_path)}) + "\n")
    task = find_task(str(rows), f"{VERIFIERS}:check")
    assert labelled(task, "wait for a program", limit=LIMIT)[0].label is None
    assert not running(str(tmp_path))


def running(text):
    """The command lines of running processes that have this text; ended ones have a moment to be gone."""
    for _ in range(100):
        lines = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        if not (found := [line for line in lines if text in line]):
            return []
        time.sleep(0.05)
    return found


def test_nothing_that_it_does_to_the_process_reaches_the_next_or_the_parent(odd, capfd):
    signals = signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT)
    labelled(odd, TEXT)
    folder, threads = os.getcwd(), threading.active_count()
    signal.setitimer(signal.ITIMER_REAL, 300)
    try:
        found = labelled(odd, *odd_verifiers.RIGHT, *odd_verifiers.RIGHT)
        time.sleep(0.1)
        found += labelled(odd, *odd_verifiers.RIGHT)
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 300
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert [(verdict.label, verdict.failure) for verdict in found] == [(True, None)] * len(found)
    assert (signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT)) == signals
    assert (os.getcwd(), threading.active_count()) == (folder, threads)
    assert capfd.readouterr() == ("", "")
    # In a new process, where nothing was copied: it has no children of ours to wait for
    assert labelled(odd, "exit", "wait for nothing")[1].label is True


def test_one_process_serves_all_calls_of_a_task_and_ends_with_it(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import os\n\ncalls = 0\n\n"
        "def check(completion, answer):\n    global calls\n    calls += 1\n    return calls == int(completion)\n\n"
        "def extract(completion):\n    return str(os.getpid())\n"
    )
    (tmp_path / "rows.jsonl").write_text('{"question": "three"}\n')
    place = str(tmp_path / "mine.py")
    task = find_task(str(tmp_path / "rows.jsonl"), f"{place}:check", f"{place}:extract")
    found = labelled(task, "1", "2", "3") + labelled(task, "4") + labelled(task, "5", "6")
    assert [verdict.label for verdict in found] == [True] * 6
    [process] = {int(verdict.answer) for verdict in found}
    assert process != os.getpid()
    del task
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


# The package's own __init__ imports torch, which takes its time
LIGHT = f"""
import sys, types
sys.modules["hf_elhsr"] = types.ModuleType("hf_elhsr")
sys.modules["hf_elhsr"].__path__ = [{str(Path(worker.__file__).parents[1])!r}]
"""
PROGRAM = f"""{LIGHT}
from hf_elhsr.tasks import find_task, verify
task = find_task(sys.argv[1], sys.argv[2])
print("begun", flush=True)
verify(task, task.problems("train", 1)[0], sys.argv[3])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("odd_one", ["match", "wait for a program"])
def test_no_process_is_left_when_the_parent_is_gone(tmp_path, number, odd_one):
    own = tmp_path / VERIFIERS.name
    own.write_text(VERIFIERS.read_text())
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"question": "three", "answer": str(tmp_path)}) + "\n")
    # The worker's command line does not tell whose it is, its environment does
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(rows), f"{own}:check", odd_one],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OWNED_BY": str(tmp_path)},
    )
    with parent:
        assert parent.stdout.readline() == "begun\n"
        time.sleep(0.3)
        assert list(running_workers(tmp_path))
        parent.send_signal(number)
        parent.wait(timeout=30)
    for _ in range(100):
        if not list(running_workers(tmp_path)):
            break
        time.sleep(0.05)
    assert not list(running_workers(tmp_path))
    assert not running(str(tmp_path))


def running_workers(owner=""):
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_worker = str(worker._PROGRAM).encode() in (process / "cmdline").read_bytes()
            if is_worker and str(owner).encode() in (process / "environ").read_bytes():
                yield process.name
        except OSError:
            continue


def test_a_process_that_was_killed_between_calls_costs_nothing(odd):
    labelled(odd, TEXT)
    for process in list(running_workers()):
        if int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
            os.kill(int(process), signal.SIGKILL)
    time.sleep(0.1)
    assert [verdict.label for verdict in labelled(odd, TEXT, "wrong")] == [True, False]


def test_a_function_passed_in_python_runs_there_if_it_can_be_pickled(rows, caplog):
    task = JsonLinesTask(rows, odd_verifiers.check)
    assert [verdict.label for verdict in labelled(task, "exit", TEXT, "without torch")] == [None, True, True]
    assert caplog.text == ""


def test_one_that_cannot_runs_here_with_one_warning(rows, caplog, capfd):
    def check(completion, answer):
        print("A verifier that prints")  # noqa: T201
        if completion == "exit":
            sys.exit(0)
        return completion == answer

    class Own(JsonLinesTask):
        pass

    for _ in range(2):
        found = labelled(Own(rows, check), TEXT, "exit", "wrong")
        assert [verdict.label for verdict in found] == [True, None, False]
        assert found[1].failure.endswith("SystemExit: 0")
    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "'rows.jsonl' runs in this process, without limits" in warning.getMessage()
    assert capfd.readouterr().out == ""


SCRIPT = f"""{LIGHT}
import os
from hf_elhsr.tasks import JsonLinesTask, Problem, verify

def check(completion, answer):
    os._exit(3)
"""
RUN = """
import logging
logging.basicConfig(level="WARNING")
try:
    print(verify(JsonLinesTask(sys.argv[1], check), Problem("id", "question", "", ""), "x"))
except Exception as error:
    print(error)
"""


def test_a_function_of_the_main_script_runs_there_only_if_the_script_can_be_imported(rows, tmp_path):
    """Otherwise all that the script does would be done twice."""
    guarded = "if __name__ == '__main__':" + RUN.replace("\n", "\n    ")
    ran = []
    for name, run in (("guarded", guarded), ("bare", RUN)):
        file = tmp_path / f"{name}.py"
        file.write_text(SCRIPT + run)
        ran.append(subprocess.run([sys.executable, file, rows], capture_output=True, text=True, timeout=120))
    assert ran[0].stdout == "Problem 'id': its process ended with exit code 3.\n", ran[0].stderr
    assert (ran[1].returncode, ran[1].stdout) == (3, "")
    assert "defined in a script without `if __name__ == '__main__'`" in ran[1].stderr
