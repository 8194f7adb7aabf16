"""verify: a completion's label from the task's verifier; a verifier that fails does not make an answer incorrect."""

import ast
import atexit
import logging
import os
import pickle
import sys
import time
import weakref
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from .._visible_text import quoted
from .task import Problem, Task
from .thoughts import without_thoughts
from .verdict import Verdict, failed, judge
from .worker import CannotLoad, Worker

logger = logging.getLogger(__name__)

#: Seconds that a verifier may take for one completion.
TIME_LIMIT = 10.0

# By the task's id, while it exists: the task itself if there is no other way to know that, and its worker
_workers: dict[int, tuple[Any, Worker]] = {}
# Types of tasks whose verifiers run in this process, of which was warned
_warned: set[type] = set()


class VerifierFailure(Exception):
    """A verifier raised an error, ended its process or took too long; the message gives the problem and the reason."""


def verify(task: Task, problem: Problem, completion: str, time_limit: float = TIME_LIMIT) -> tuple[bool, str | None]:
    """The label of a completion, and the final answer that the task found in it.

    The task is called in a process of its own, which stays for the next call, with the completion
    [`without_thoughts`]. A task that cannot be pickled, or whose classes another process cannot import, is called here,
    with a warning.

    Args:
        task: The task.
        problem: One of its problems.
        completion: The text.
        time_limit: Seconds that the task may take.

    Raises:
        VerifierFailure: `task.verify` or `task.extract` raised an error, did not return a label and a text or None,
            took longer than `time_limit`, used more than 4 GiB of memory, or ended the process.
        ValueError: The task cannot be loaded.
    """
    [verdict] = verdicts(task, [(problem, completion)], time_limit)
    if verdict.label is None:
        raise VerifierFailure(verdict.failure)
    return verdict.label, verdict.answer


def verdicts(
    task: Task, completions: Sequence[tuple[Problem, str]], time_limit: float = TIME_LIMIT, in_thought: bool = False
) -> list[Verdict]:
    """[`verify`] for many completions; failures are part of the verdicts.

    Args:
        task: The task.
        completions: Problems, each with a completion.
        time_limit: Seconds for each.
        in_thought: Whether completions begin inside a thought, which the prompt began.

    Raises:
        ValueError: The task cannot be loaded.
    """
    asked = [(problem, without_thoughts(completion, in_thought)) for problem, completion in completions]
    worker = _worker(task)
    if worker is None:
        found = [_verdict_here(task, problem, completion, time_limit) for problem, completion in asked]
    else:
        found = worker.verdicts(asked, time_limit)
    return [
        verdict if verdict.failure is None else Verdict(None, None, f"Problem {problem.id!r}: {verdict.failure}")
        for (problem, _), verdict in zip(asked, found, strict=True)
    ]


def check_loads(task: Task) -> None:
    """Load a task in the process that will label its completions, which a typo in a user's file prevents.

    Raises:
        ValueError: It cannot be loaded.
    """
    _worker(task)


def _worker(task: Task) -> Worker | None:
    """The task's running process, or None if it has to be called in this one; warns of that once."""
    try:
        pickled = _pickled(task)
        _, known = _workers.get(id(task), (None, None))
        # A task can be changed after its process was started
        if known is None or known.task != pickled:
            known = _register(task, Worker(pickled, _main_module() if b"__main__" in pickled else None))
        known.start()
    except CannotLoad as reason:
        if type(task) not in _warned:
            _warned.add(type(task))
            logger.warning(
                f"The verifier of the task {quoted(task.name)!r} runs in this process, without limits of time and "
                f"memory, as it cannot be moved to another one ({reason}). Define it at the top level of a module, or "
                "name it as 'file.py:function'."
            )
        return None
    return known


def _pickled(task: Task) -> bytes:
    try:
        return pickle.dumps(task)
    except Exception as error:
        raise CannotLoad(str(failed(error).failure)) from error


def _register(task: Task, worker: Worker) -> Worker:
    _forget(id(task))
    try:
        weakref.finalize(task, _forget, id(task)).atexit = False
        _workers[id(task)] = None, worker
    except TypeError:
        # Without weak references, the task is kept, so that its id stays its own
        _workers[id(task)] = task, worker
    return worker


def _forget(task_id: int) -> None:
    _, worker = _workers.pop(task_id, (None, None))
    if worker is not None:
        worker.close()


@atexit.register
def _end_all() -> None:
    for task_id in list(_workers):
        _forget(task_id)


if hasattr(os, "register_at_fork"):
    # A forked process that used its parent's workers would take the answers meant for the parent
    os.register_at_fork(after_in_child=_workers.clear)


def _main_module() -> tuple[str | None, str]:
    """The name and the path of the main module, to be executed again by the worker.

    Raises:
        CannotLoad: It has no file, or no part that is executed only where it is the main module: the rest may be
            anything but definitions.
    """
    main = sys.modules["__main__"]
    path, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if path is None or not Path(path).is_file():
        raise CannotLoad("it is defined in an interactive session")
    if not any(isinstance(part, ast.If) and "__name__" in ast.unparse(part.test) for part in _statements(path)):
        raise CannotLoad("it is defined in a script without `if __name__ == '__main__'`")
    return None if spec is None else spec.name, str(Path(path).absolute())


def _statements(path: str) -> list[ast.stmt]:
    try:
        return ast.parse(Path(path).read_bytes()).body
    except (SyntaxError, ValueError):
        # A program that is no source code
        return []


def _verdict_here(task: Task, problem: Problem, completion: str, time_limit: float) -> Verdict:
    start = time.monotonic()
    try:
        # What it prints is no part of the program's output, here as elsewhere
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            verdict = judge(task, problem, completion)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an error of the verifier is its verdict
        return failed(error)
    if time.monotonic() - start > time_limit:
        return Verdict(None, None, f"no label after {time_limit:g} s.")
    return verdict
