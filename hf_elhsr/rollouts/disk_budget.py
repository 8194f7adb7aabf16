"""plan_recording: the tokens and layers to record, so that the features fit a disk budget."""

import copy
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils import logging

from ..head.configuration_elhsr import ElhsrConfig

logger = logging.get_logger(__name__)

# Tokens of the longest completions that are kept; with fewer, gates would have little effect
_FEWEST_TOKENS = 8
_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class RecordingPlan:
    """The features that are recorded.

    Args:
        config: The configuration of the head to be trained, which defines h_t.
        every: Tokens every, 2 every, 3 every, ... of a completion are recorded, and always its last.
        dtype: The dtype of the features.
        num_bytes: The size of the features if every completion has the maximal length.
    """

    config: ElhsrConfig
    every: int
    dtype: torch.dtype
    num_bytes: int


def plan_recording(
    config: ElhsrConfig, dtype: torch.dtype, rollouts: int, max_new_tokens: int, budget: int | None = None
) -> RecordingPlan:
    """Plan which tokens and layers to record so that the features fit the budget.

    The first of these that fits is used: all tokens; every 2nd, 3rd, ... with at least 8 left of the longest
    completions; and then, with as few tokens as that, as many layers as fit, evenly spaced, the last one included.
    Tokens are left out first, since neighbours are similar and the best layers are not known beforehand. The plan is
    logged. The budget covers features; texts and labels take little more.

    Args:
        config: The configuration of the head to be trained, on everything that may be recorded.
        dtype: The dtype of the recorded features.
        rollouts: How many completions are to be sampled.
        max_new_tokens: Length of the longest completions.
        budget: In bytes. Default: no limit.

    Raises:
        ValueError: Not even one layer of the fewest tokens fits, or the budget is not positive.
    """

    def plan(config: ElhsrConfig, every: int) -> RecordingPlan:
        num_bytes = most_bytes(config, dtype, rollouts * -(-max_new_tokens // every))
        return RecordingPlan(config, every, dtype, num_bytes)

    if budget is None:
        return plan(config, 1)
    if budget < 1:
        raise ValueError(f"disk_budget={budget}: expected a positive number of bytes.")
    fewest = min(_FEWEST_TOKENS, max_new_tokens)
    steps = [every for every in range(1, max_new_tokens + 1) if -(-max_new_tokens // every) >= fewest]
    plans = [plan(config, every) for every in steps]
    plans += [plan(_on_layers(config, count), steps[-1]) for count in range(len(config.layers) - 1, 0, -1)]
    chosen = next((plan for plan in plans if plan.num_bytes <= budget), None)
    if chosen is None:
        raise ValueError(
            f"disk_budget={budget}: features of one token in {steps[-1]} "
            f"{'and of one layer ' if config.layers else ''}alone may take {plans[-1].num_bytes} bytes. Allow this "
            "many, or sample fewer prompts, fewer completions of each, or shorter ones."
        )
    if chosen is not plans[0]:
        parts = []
        if chosen.every > 1:
            parts.append(f"one token in {chosen.every} and the last, so that training fits no pruning schedule")
        if chosen.config.layers != config.layers:
            parts.append(f"layers {chosen.config.layers} of {len(config.layers)}")
        logger.warning(
            f"Features of all tokens and layers may take {plans[0].num_bytes:,} bytes, and the disk budget is "
            f"{budget:,}. Recorded are {' and '.join(parts)}: at most {chosen.num_bytes:,} bytes."
        )
    return chosen


def most_bytes(config: ElhsrConfig, dtype: torch.dtype, tokens: int) -> int:
    """The bytes that the features of this many tokens take in this dtype."""
    return tokens * config.num_features * dtype.itemsize


def warn_of_little_room(folder: Path, num_bytes: int) -> None:
    """Warn, before sampling starts, if a folder's disk may be too small for this many more bytes."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        logger.warning(
            f"The features may take up to {num_bytes / 1e9:,.1f} GB, and the disk of {str(folder)!r} has "
            f"{free / 1e9:,.1f} GB left. A disk budget (`--disk-budget`, `disk_budget`) leaves some of them out."
        )


def parse_bytes(text: str) -> int:
    """Parse a number of bytes from text such as 50GB, 800 MB or 1.5TB; units are powers of ten.

    Raises:
        ValueError: The text is not a number with one of these units.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    units = {unit.lower(): factor for unit, factor in _UNITS.items()}
    if found is None or found[2].lower() not in units:
        raise ValueError(f"Expected a number of bytes, as in 50GB or 800MB, got {text!r}.")
    return int(float(found[1]) * units[found[2].lower()])


def recorded_tokens(length: int, every: int) -> list[int]:
    """The tokens of a completion that are recorded, counted from 0: one in `every`, and the last."""
    tokens = list(range(every - 1, length, every))
    return tokens if tokens and tokens[-1] == length - 1 else [*tokens, length - 1]


def _on_layers(config: ElhsrConfig, count: int) -> ElhsrConfig:
    chosen = copy.deepcopy(config)
    total = len(config.layers)
    chosen.layers = [config.layers[(number + 1) * total // count - 1] for number in range(count)]
    return chosen
