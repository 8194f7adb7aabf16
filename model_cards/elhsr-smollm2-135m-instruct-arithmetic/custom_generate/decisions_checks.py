# Made by hf_elhsr 0.1.0 from its hf_elhsr/decisions/checks.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""What the fields of a head's `calibration`, `pruning` and `adaptive` must be; [`ElhsrConfig`] says what they mean."""

import math
from collections.abc import Callable
from typing import Any


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_positive(value)


def _is_row(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 2 and all(_is_number(number) for number in value)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_row(row) and len(row) == len(value[0]) for row in value)


def _is_regret_table(value: Any) -> bool:
    """From regrets, shares of prompts as text, to settings between 0 and 1."""
    if not isinstance(value, dict) or not value:
        return False
    try:
        return all(
            0 < float(regret) < 1 and _is_number(setting) and 0 <= setting <= 1 for regret, setting in value.items()
        )
    except (TypeError, ValueError):
        return False


_Check = Callable[[Any], bool]
_LINE: dict[str, tuple[str, _Check]] = {"slope": ("a number above 0", _is_positive), "offset": ("a number", _is_number)}
_FITTED_ON: dict[str, tuple[str, _Check]] = {
    "n": ("a count of at least 1", _is_count),
    "prompts": ("a count of at least 1", _is_count),
}
_DECISIONS: dict[str, dict[str, tuple[str, _Check]]] = {
    "calibration": {
        **_LINE,
        "winner": ("a slope above 0 and an offset", lambda value: _fields_error(value, _LINE) is None),
        **_FITTED_ON,
    },
    "pruning": {
        "interval": ("a count of at least 1", _is_count),
        "prefix": ("rows of at least two numbers, all of one length", _is_table),
        "final": ("two numbers", lambda value: _is_row(value) and len(value) == 2),
        "value": ("rows of five numbers", lambda value: _is_table(value) and len(value[0]) == 5),
        "prices": ("a table from regrets to prices between 0 and 1", _is_regret_table),
        **_FITTED_ON,
    },
    "adaptive": {
        "wave": ("a count of at least 1", _is_count),
        "thresholds": ("a table from regrets to probabilities", _is_regret_table),
        "prices": ("a table from regrets to prices between 0 and 1", _is_regret_table),
        **_FITTED_ON,
    },
}


def _fields_error(given: Any, fields: dict[str, tuple[str, _Check]]) -> str | None:
    if not isinstance(given, dict) or given.keys() != fields.keys():
        got = sorted(map(str, given)) if isinstance(given, dict) else given
        return f"expected exactly {', '.join(fields)}, got {got!r}"
    for field, (expected, holds) in fields.items():
        if not holds(given[field]):
            return f"{field} must be {expected}, got {given[field]!r}"
    return None


def check_decision(name: str, given: Any) -> None:
    """Refuse a damaged `calibration`, `pruning` or `adaptive`.

    Raises:
        ValueError: A field is missing, unknown, or not what it must be.
    """
    error = _fields_error(given, _DECISIONS[name])
    if error is None and name == "pruning" and len(given["prefix"]) != len(given["value"]):
        error = f"prefix and value must have a row each per check, got {len(given['prefix'])} and {len(given['value'])}"
    if error is None and name == "adaptive" and given["prices"].keys() != given["thresholds"].keys():
        error = (
            f"thresholds and prices must be of the same regrets, got {[*given['thresholds']]} and {[*given['prices']]}"
        )
    if error is not None:
        raise ValueError(
            f"The head's config has a damaged {name}: {error}. Download or save the head again, or set {name} to null."
        )
