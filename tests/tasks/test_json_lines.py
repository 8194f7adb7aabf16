"""A user's rows and verifier: answers arrive as they were written, and files are loaded as Python loads a script."""

import json
import os

import pytest

from hf_elhsr.tasks import JsonLinesTask, VerifierFailure, find_task, verify

VALUES = ["12", "", 12, 1.5, True, ["12", "twelve"], {"value": "12"}, [["a", None], 2]]


def write_rows(folder, answer):
    file = folder / "rows.jsonl"
    file.write_text(json.dumps({"question": "three", "answer": answer}) + "\n")
    return file


def code(folder, text, name="mine.py"):
    (folder / name).write_text(text)
    return f"{folder / name}:check"


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_an_answer_reaches_the_verifier_as_the_value_that_was_written(tmp_path, value):
    place = code(
        tmp_path,
        f"def check(completion, answer):\n    return (type(answer), answer) == (type({value!r}), {value!r})\n",
    )
    task = find_task(str(write_rows(tmp_path, value)), place)
    [problem] = task.problems("train", 1)
    assert task.verify(problem, "x")
    assert verify(task, problem, "x") == (True, None)


@pytest.mark.parametrize("value", [["12", "twelve"], {"value": "12"}, 12, 1.5])
def test_no_part_of_an_answers_notation_is_correct(tmp_path, value):
    """A number has no parts, so that the verifier fails, which is counted; it labels nothing correct."""
    task = JsonLinesTask(write_rows(tmp_path, value), lambda completion, answer: completion in answer)
    [problem] = task.problems("train", 1)
    for completion in ("1", "[", "'", "12"):
        try:
            assert task.verify(problem, completion) is (value == ["12", "twelve"] and completion == "12")
        except TypeError:
            assert isinstance(value, int | float)


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_missing_answer_is_refused_with_its_row(tmp_path, value):
    task = JsonLinesTask(write_rows(tmp_path, value), lambda completion, answer: answer in completion)
    with pytest.raises(ValueError, match=r"Row 1 .*Expected an 'answer', got (None|nan): remove the field"):
        task.problems("train", 1)


def test_a_verifier_that_changes_an_answer_changes_it_for_itself(tmp_path):
    place = code(tmp_path, "def check(completion, answer):\n    return answer.pop() == completion\n")
    task = find_task(str(write_rows(tmp_path, ["12"])), place)
    [problem] = task.problems("train", 1)
    for _ in range(2):
        assert task.verify(problem, "12")
        assert verify(task, problem, "12") == (True, None)


FILE = """from __future__ import annotations

from dataclasses import dataclass

from helper import last_word

print("loading the answers")


@dataclass
class Parsed:
    value: str
    unit: str | None = None


def check(completion: str, answer: str) -> bool:
    import lazy_helper

    return lazy_helper.same(Parsed(last_word(completion)), Parsed(answer))
"""


@pytest.mark.parametrize("name", ["mine.py", "my-verifier.py", "json.py", "verify me.py"])
def test_a_file_has_neighbours_and_dataclasses(tmp_path, monkeypatch, capfd, name):
    """From any folder, and with names that are taken or cannot be imported."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "helper.py").write_text("def last_word(text):\n    return (text.split() or [''])[-1]\n")
    (own / "lazy_helper.py").write_text("def same(one, other):\n    return one == other\n")
    code(own, FILE, name)
    write_rows(tmp_path, "12")
    for folder, place in ((tmp_path, f"own/{name}:check"), (own, f"{name}:check")):
        monkeypatch.chdir(folder)
        task = find_task(os.path.relpath(tmp_path / "rows.jsonl"), place)
        [problem] = task.problems("train", 1)
        assert verify(task, problem, "It is 12") == (True, None)
        assert verify(task, problem, "It is 2") == (False, None)
    # Whatever its file prints while it is loaded stays there, too
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def other(completion, answer):\n    return True\n", "has no function 'check'"),
        ("x = 1\nraise RuntimeError('of the file')", "cannot be loaded, at line 2: RuntimeError: of the file"),
        ("import sys\nsys.exit(0)\n", "cannot be loaded, at line 2: SystemExit: 0"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
        ("import os\nos._exit(0)\n", "cannot be loaded: its process ended with exit code 0 while loading it"),
        ("import nothing_of_this_name\n", "No module named 'nothing_of_this_name'"),
        ("def check(\n", "SyntaxError"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_refused_when_the_task_is_made(tmp_path, text, message):
    rows = str(write_rows(tmp_path, "12"))
    with pytest.raises(ValueError, match=message):
        find_task(rows, code(tmp_path, text))


def test_labels_from_before_and_after_a_change_of_the_file_are_not_mixed(tmp_path):
    place = code(tmp_path, "import os\n\ndef check(completion, answer):\n    return completion or os._exit(1)\n")
    rows = str(write_rows(tmp_path, "12"))
    task = find_task(rows, place)
    [problem] = task.problems("train", 1)
    code(tmp_path, "def check(completion, answer):\n    return True\n")
    with pytest.raises(VerifierFailure, match="exit code 1"):
        verify(task, problem, "")
    with pytest.raises(ValueError, match=r"mine.py' was changed or removed .* run the command again"):
        verify(task, problem, "")
    assert verify(find_task(rows, place), problem, "") == (True, None)


LAZY = """
import sys

from hf_elhsr import Problem, Task, find_task
from hf_elhsr.tasks import ArithmeticTask

light = "torch" not in sys.modules

import hf_elhsr


def check(completion, answer):
    if completion == "light":
        return light
    return hf_elhsr.Problem is Problem and hf_elhsr.rollouts.Rollout is hf_elhsr.Rollout
"""


def test_a_verifier_can_import_this_package(tmp_path):
    """What concerns tasks comes without torch, and everything else when it is asked for."""
    task = find_task(str(write_rows(tmp_path, "12")), code(tmp_path, LAZY))
    [problem] = task.problems("train", 1)
    assert verify(task, problem, "light") == (True, None)
    assert verify(task, problem, "all", time_limit=120) == (True, None)
