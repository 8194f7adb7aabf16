"""Decision: the base class of what is fitted on held-out prompts and stored in a head's config, and its checks.

A decision is a frozen artefact: numbers, their checks, and the rule that applies them. Fitting is separate, in
`fit.py`, and is not part of the code that a published head carries. `DECISIONS` in `head/configuration_elhsr.py` lists
all decisions.
"""

import dataclasses
from numbers import Real
from typing import Any, ClassVar, Self

from .._checks import is_number, is_whole_number, quoted, shortened

#: The tolerances that heads are fitted for: accuracy that may be given up, as shares of prompts.
TOLERANCES = (0.005, 0.01, 0.015, 0.02, 0.05)
# No count in a head comes near it; a damaged file may hold any number
_MOST_COUNTED = 2**31


class Decision:
    """Numbers fitted on held-out prompts. Subclasses are frozen dataclasses whose `__post_init__` checks every field.

    Attributes:
        name: The config's field, also used in errors.
        missing: The error message when it is asked for and the head has none.
    """

    name: ClassVar[str]
    missing: ClassVar[str]

    @classmethod
    def from_config(cls, given: Any) -> Self:
        """From an instance, or from what `config.json` holds.

        Raises:
            ValueError: A field is missing, unknown, or outside the values that it can have.
        """
        if isinstance(given, cls):
            return given
        fields = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        try:
            if not isinstance(given, dict) or given.keys() != set(fields):
                got = sorted(map(str, given)) if isinstance(given, dict) else given
                raise ValueError(f"expected exactly {', '.join(fields)}, got {quoted(got)}")
            return cls(**given)
        except ValueError as error:
            raise ValueError(
                f"The head's config has a damaged {cls.name}: {error}. Download or save the head again, or set "
                f"{cls.name} to null."
            ) from error

    def check_features(self, count: int) -> None:
        """Refuse numbers that do not fit a head.

        Args:
            count: How many features of a prefix this head computes, see `Aggregation.prefix_features`.

        Raises:
            ValueError: They were fitted on a different number of features.
        """

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` holds."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]


def check(name: str, value: Any, expected: str, holds: bool) -> None:
    """Refuse a field's value unless it holds.

    Raises:
        ValueError: "NAME must be EXPECTED, got VALUE".
    """
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {quoted(value)}")


def check_counts(**counts: Any) -> None:
    """Refuse counts other than whole numbers of at least 1."""
    for name, value in counts.items():
        check(name, value, "a count of at least 1", is_whole_number(value, at_least=1) and value < _MOST_COUNTED)


def check_settings(name: str, value: Any, what: str) -> None:
    """Refuse anything but a table from tolerances (shares of prompts, as text) to settings between 0 and 1."""
    try:
        holds = bool(value) and all(
            0 < float(tolerance) < 1 and is_number(setting) and 0 <= setting <= 1
            for tolerance, setting in value.items()
        )
    except (AttributeError, TypeError, ValueError):
        holds = False
    check(name, value, f"a table from tolerances to {what}", holds)


def rows_of_numbers(value: Any) -> tuple[tuple[float, ...], ...] | None:
    """Rows of at least two numbers, all of the same length, as tuples; None for anything else."""
    if not isinstance(value, list | tuple) or not value or not all(isinstance(row, list | tuple) for row in value):
        return None
    same = all(len(row) == len(value[0]) >= 2 and all(map(is_number, row)) for row in value)
    return tuple(tuple(row) for row in value) if same else None


def setting_for(table: dict[str, float], tolerance: float, argument: str) -> float:
    """The setting of the largest stored tolerance that is not above the one asked for.

    Args:
        table: From tolerances, as text, to settings.
        argument: Name of the argument of `generate`, for the error message.

    Raises:
        ValueError: Every stored tolerance is above the one asked for, or the latter is not a share of prompts.
    """
    stored = sorted(table, key=float)
    is_share = isinstance(tolerance, Real) and not isinstance(tolerance, bool)
    allowed = [key for key in stored if is_share and float(key) <= tolerance < 1]
    if not allowed:
        raise ValueError(
            f"{argument}={quoted(tolerance)}: expected how much accuracy may be given up, as a share of prompts of at "
            f"least {stored[0]} and below 1. This head has settings for {shortened(', '.join(stored))}."
        )
    return table[allowed[-1]]
