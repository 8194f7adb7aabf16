"""Checks for reading what `--numbers FILE` of a command wrote; anything else is a clear error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TEXTS = ("task", "split", "head_sha256")
_NUMBERS = ("area_under_curve", "expected_calibration_error", "base_rate", "answered", "brier_score")
_COUNTS = ("prompts", "n", "skip", "unverified", "overlong")


@contextmanager
def expecting(kind: str, command: str) -> Iterator[None]:
    """Turn any error from values that are missing, unknown or of an unexpected type into a ValueError.

    Args:
        kind: What is read, with its article.
        command: The command that wrote it.
    """
    try:
        yield
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"This is not {kind}: expected what `{command}` wrote ({type(error).__name__}: {error})."
        ) from error


def check_names(values: dict[str, Any]) -> None:
    """Check the fields that say which prompts and which head the numbers belong to, and the numbers that stand alone.

    Raises:
        TypeError: A name is not text, a count is not a whole number, or a number is none.
        OverflowError: A number is too large.
    """
    kinds: tuple[tuple[tuple[str, ...], Any], ...] = ((_TEXTS, str), (_COUNTS, int), (_NUMBERS, int | float | None))
    for names, kind in kinds:
        for name in names:
            if name in values and not isinstance(values[name], kind):
                raise TypeError(f"{name} is {str(values[name])[:80]!r}")
    for number in _numbers(values):
        float(number)


def _numbers(values: Any) -> Iterator[int]:
    """All whole numbers in nested values; others are floats already."""
    if isinstance(values, int):
        yield values
    elif isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _numbers(value)
