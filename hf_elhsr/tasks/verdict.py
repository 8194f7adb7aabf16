"""Verdict: what a task's verifier says of one completion, or why it says nothing."""

import sys
from typing import Any, NamedTuple

from .._visible_text import quoted
from .task import Problem, Task


class Verdict(NamedTuple):
    """A label and a final answer; or a failure of the verifier, which leaves both None."""

    label: bool | None
    answer: str | None
    failure: str | None = None


def judge(task: Task, problem: Problem, completion: str) -> Verdict:
    """The verdict of the task, which is called here and now; raises whatever its code raises."""
    label, answer = task.verify(problem, completion), task.extract(completion)
    if not isinstance(label, bool | int | _numpy_bool()) or label not in (True, False):
        return Verdict(None, None, f"expected True or False, got {_text(label, repr)}.")
    if not isinstance(answer, str | None):
        # A Decimal could not be written to a shard's JSON, which would fail only after sampling
        kind = type(answer).__name__
        return Verdict(None, None, f"expected a final answer as text or None, got {kind} {_text(answer, repr)}.")
    return Verdict(bool(label), answer)


def failed(error: BaseException) -> Verdict:
    """The verdict where the verifier raised this."""
    text = _text(error, str)
    return Verdict(None, None, f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _numpy_bool() -> type[Any]:
    # Imported by whoever returns one, and not here, as a verifier's process starts sooner without it
    numpy = sys.modules.get("numpy")
    return bool if numpy is None else numpy.bool_


def _text(value: object, write: Any) -> str:
    try:
        return quoted(write(value))
    except Exception as error:  # noqa: BLE001 - the user's own __repr__
        return f"something that cannot be shown ({type(error).__name__})"
