"""The tasks that can be named on the command line."""

from collections.abc import Callable

from .arithmetic import ArithmeticTask
from .task import Task

TASKS: dict[str, Callable[[], Task]] = {ArithmeticTask.name: ArithmeticTask}


def find_task(name: str) -> Task:
    """The task of this name.

    Raises:
        ValueError: There is none.
    """
    if name not in TASKS:
        raise ValueError(f"Unknown task {name!r}: choose one of {sorted(TASKS)}.")
    return TASKS[name]()
