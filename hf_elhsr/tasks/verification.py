"""verify: a completion's label from the task's verifier; a verifier that fails does not make an answer incorrect."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

import numpy as np

from .task import Problem, Task

#: Seconds that a verifier may take for one completion.
TIME_LIMIT = 10.0
# Seconds after which a verifier that continues after being stopped is stopped again
_INTERVAL = 1.0

_T = TypeVar("_T")


class VerifierFailure(Exception):
    """A verifier raised an error or took too long; the message gives the problem and the reason."""


class _OutOfTime(BaseException):
    """Not an Exception, so that an `except Exception` in the verifier does not catch it."""


def verify(task: Task, problem: Problem, completion: str, time_limit: float = TIME_LIMIT) -> tuple[bool, str | None]:
    """The label of a completion, and the final answer that the task found in it.

    The time limit applies in the main thread of a Unix process; elsewhere Python cannot stop a function.

    Raises:
        VerifierFailure: `task.verify` or `task.extract` raised an error, did not return a label and a text or None, or
            took longer than `time_limit`, whatever they returned then.
    """
    try:
        label, answer = _within(time_limit, lambda: (task.verify(problem, completion), task.extract(completion)))
    except _OutOfTime:
        raise VerifierFailure(f"Problem {problem.id!r}: no label after {time_limit:g} s.") from None
    except Exception as error:
        raise VerifierFailure(f"Problem {problem.id!r}: {type(error).__name__}: {error}") from error
    if not isinstance(label, bool | int | np.bool_) or label not in (True, False):
        raise VerifierFailure(f"Problem {problem.id!r}: expected True or False, got {label!r}.")
    if not isinstance(answer, str | None):
        # A Decimal could not be written to a shard's JSON, which would fail only after sampling
        raise VerifierFailure(
            f"Problem {problem.id!r}: expected a final answer as text or None, got {type(answer).__name__} {answer!r}."
        )
    return bool(label), answer


def _within(seconds: float, function: Callable[[], _T]) -> _T:
    """What `function` returns, if it returns in time.

    Raises:
        _OutOfTime: It did not, even if it continued after it was stopped.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        return function()
    late, running = False, True

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal late
        late = True
        if running:
            raise _OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    try:
        try:
            # Repeatedly: a bare `except` swallows one alarm, and the code after it can take as long
            signal.setitimer(signal.ITIMER_REAL, seconds, min(seconds, _INTERVAL))
            result = function()
        finally:
            # From here on nothing may be stopped, in particular not the restoring of the signal
            running = False
    except (_OutOfTime, Exception):
        if not late:
            raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if late:
        raise _OutOfTime
    return result
