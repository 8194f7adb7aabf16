"""The tasks that can be named on the command line."""

import json
import re
from collections.abc import Callable
from typing import Any

from .arithmetic import ArithmeticTask
from .coin_flip import CoinFlipTask
from .json_lines import JsonLinesTask, described_function, load_function
from .math_problems import Gsm8kTask, MathTask
from .multiple_choice import AquaRatTask, HellaSwagTask, MultipleChoiceTask
from .reasoning_gym import ReasoningGymTask
from .task import Task

#: Tasks that need nothing but themselves.
_MADE: dict[str, Callable[[], Task]] = {task.name: task for task in (ArithmeticTask, CoinFlipTask)}
#: Tasks of the Hub, or of a file: 'gsm8k' or 'gsm8k:my.jsonl'.
_ROWS: dict[str, Callable[[str | None], Task]] = {
    task.name: task for task in (Gsm8kTask, MathTask, AquaRatTask, HellaSwagTask, MultipleChoiceTask)
}
TASKS = (*_MADE, *_ROWS, "reasoning_gym:DATASET", "reasoning_gym:DATASET:SETTING=VALUE,...", "FILE.jsonl")


def find_task(name: str, verifier: str | None = None, extract: str | None = None) -> Task:
    """The task of this name.

    Args:
        name: 'arithmetic'; 'gsm8k' for a task of the Hub, or 'gsm8k:my.jsonl' for its rows in a file;
            'reasoning_gym:DATASET', or with settings of that dataset, as 'reasoning_gym:chain_sum:max_terms=3'; or a
            .jsonl file of one's own prompts, with a verifier.
        verifier: 'file.py:function', for one's own prompts.
        extract: Also for these, the final answer of a completion. Default: none, and nothing is voted on.

    Raises:
        ValueError: There is no such task, or a verifier is missing or has no use.
    """
    first, colon, rest = name.partition(":")
    own = name.endswith(".jsonl") and first not in _ROWS
    if own != (verifier is not None):
        raise ValueError(
            f"{name!r} needs a verifier as 'file.py:function'." if own else f"The task {name!r} has its own verifier."
        )
    if extract is not None and not own:
        raise ValueError(f"The task {name!r} finds final answers itself.")
    if own:
        places = {"verifier": str(verifier)} | ({"extract": extract} if extract is not None else {})
        loaded = {option: load_function(place) for option, place in places.items()}
        described = [described_function(option, place) for option, place in places.items()]
        return JsonLinesTask(name, **loaded, functions={key: text for of in described for key, text in of.items()})
    if name in _MADE:
        return _MADE[name]()
    if first in _ROWS:
        return _ROWS[first](rest if colon else None)
    if first == "reasoning_gym" and rest:
        dataset, _, settings = rest.partition(":")
        return ReasoningGymTask(dataset, **_settings(settings))
    raise ValueError(f"Unknown task {name!r}: choose one of {', '.join(TASKS)}.")


def _settings(text: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    # Values may have commas of their own
    for part in re.split(r",(?=\s*\w+=)", text) if text else []:
        name, equals, value = part.strip().partition("=")
        if not (equals and name.isidentifier()) or name in ("dataset", "self"):
            raise ValueError(f"Expected settings of a dataset as name=value, separated by commas, got {part!r}.")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings
