"""The tasks known by name: those of this package, and those that a user registers."""

import inspect
from collections.abc import Callable

from .._checks import quoted
from .arithmetic import ArithmeticTask
from .coin_flip import CoinFlipTask
from .file_function import FileFunction
from .json_lines import JsonLinesTask
from .math_problems import Gsm8kTask, MathTask
from .multiple_choice import AquaRatTask, HellaSwagTask, MultipleChoiceTask
from .reasoning_gym import reasoning_gym_task
from .row_files import expected_files, is_row_file, looks_like_a_file
from .task import Task
from .verification import check_loads

#: Factories by name: called without arguments for 'NAME', and with the text after the colon for 'NAME:TEXT'.
TASKS: dict[str, Callable[..., Task]] = {
    "arithmetic": ArithmeticTask,
    "coin_flip": CoinFlipTask,
    "gsm8k": Gsm8kTask,
    "math": MathTask,
    "aqua_rat": AquaRatTask,
    "hellaswag": HellaSwagTask,
    "multiple_choice": MultipleChoiceTask,
    "reasoning_gym": reasoning_gym_task,
}
# The forms of tasks that need more than their name
_FORMS = {"reasoning_gym": ("reasoning_gym:DATASET", "reasoning_gym:DATASET:SETTING=VALUE,...")}
_OWN_PROMPTS = "FILE.jsonl"


def register_task(name: str, factory: Callable[..., Task]) -> None:
    """Make a task known by its name, to [`find_task`] and so to the command line's `--task`.

    Args:
        name: A name without a colon. The factory's tasks should have this `name`, or one that starts with it and a
            colon, so that rollouts lead back to them.
        factory: Makes the task; usually its class. It is called without arguments for `NAME`, and with the text after
            the colon for `NAME:TEXT`, if it takes any.

    Raises:
        ValueError: The name is taken, has a colon, or ends like files of prompts, e.g. in .jsonl.
    """
    if name in TASKS:
        raise ValueError(f"A task {name!r} already exists: use a different name.")
    if not name or ":" in name or is_row_file(name):
        raise ValueError(
            f"Expected a task's name without a colon and without the ending of a file, got {quoted(name)}."
        )
    TASKS[name] = factory


def task_forms() -> tuple[str, ...]:
    """The forms in which tasks are asked for, with placeholders in capitals."""
    return (*(form for name in TASKS for form in _FORMS.get(name, (name,))), _OWN_PROMPTS)


def find_task(name: str, verifier: str | None = None, extract: str | None = None) -> Task:
    """The task of this name.

    Args:
        name: The name of a task in [`TASKS`], such as 'arithmetic'; 'gsm8k' for a task on the Hub, or 'gsm8k:my.jsonl'
            for its rows in a file; 'reasoning_gym:DATASET', or with settings of that dataset, as in
            'reasoning_gym:chain_sum:max_terms=3'; or a file of the user's prompts, .jsonl or
            any other that [`read_rows`] reads, with a verifier.
        verifier: 'file.py:function', for the user's prompts.
        extract: 'file.py:function' that finds the final answer of a completion, for the user's prompts. Default: none,
            and there is no majority vote.

    Raises:
        ValueError: The task does not exist, a verifier is missing or not needed, or its file cannot be loaded.
    """
    first, colon, rest = name.partition(":")
    own = first not in TASKS and is_row_file(name)
    if first not in TASKS and not own:
        if verifier is not None or looks_like_a_file(name):
            raise ValueError(
                f"Unknown task {quoted(name)}: it is no file of prompts that can be read, which end in "
                f"{expected_files()}; and no task's name. Expected one of {', '.join(task_forms())}."
            )
        raise ValueError(f"Unknown task {quoted(name)}: expected one of {', '.join(task_forms())}.")
    if own and verifier is None:
        raise ValueError(f"{quoted(name)} needs a verifier: pass it as 'file.py:function'.")
    if not own and verifier is not None:
        raise ValueError(f"The task {quoted(name)} has its own verifier: leave out yours.")
    if not own and extract is not None:
        raise ValueError(f"The task {quoted(name)} finds final answers itself: leave out your function.")
    if own:
        functions = {"verifier": FileFunction(str(verifier))}
        if extract is not None:
            functions["extract"] = FileFunction(extract)
        described = [function.described(option) for option, function in functions.items()]
        task = JsonLinesTask(name, **functions, functions={key: text for of in described for key, text in of.items()})
        # A typo is reported now, not after hours of sampling
        check_loads(task)
        return task
    arguments = [rest] if colon else []
    if not _takes(TASKS[first], arguments):
        raise ValueError(f"Unknown task {quoted(name)}: expected one of {', '.join(task_forms())}.")
    return TASKS[first](*arguments)


def _takes(factory: Callable[..., Task], arguments: list[str]) -> bool:
    try:
        inspect.signature(factory).bind(*arguments)
    except TypeError:
        return False
    return True
