"""verify: a task's verdict on one completion, where a verifier that fails is not taken for a wrong answer."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import numpy as np

from .task import Problem, Task

#: Seconds that a verifier may take for one completion.
TIME_LIMIT = 10.0


class VerifierFailure(Exception):
    """A verifier raised or took too long; says what, of which problem."""


class _OutOfTime(BaseException):
    """Past an `except Exception` in the verifier."""


def verify(task: Task, problem: Problem, completion: str, time_limit: float = TIME_LIMIT) -> tuple[bool, str | None]:
    """The label of a completion, and the final answer that the task found in it.

    The time limit holds in the main thread of a Unix process; elsewhere Python has no way to stop a function.

    Raises:
        VerifierFailure: `task.verify` or `task.extract` raised, returned no verdict, or took longer than `time_limit`.
    """
    try:
        with _stopped_after(time_limit):
            label, answer = task.verify(problem, completion), task.extract(completion)
    except _OutOfTime:
        raise VerifierFailure(f"Problem {problem.id!r}: no verdict after {time_limit:g} s.") from None
    except Exception as error:
        raise VerifierFailure(f"Problem {problem.id!r}: {type(error).__name__}: {error}") from error
    if not isinstance(label, bool | int | np.bool_) or label not in (True, False):
        raise VerifierFailure(f"Problem {problem.id!r}: expected True or False, got {label!r}.")
    return bool(label), answer


@contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
