"""Checks of arguments that are the same throughout the package."""

from typing import Any


def whole_number(name: str, value: Any, at_least: int | None = 1) -> int:
    """`value` itself, where it is a whole number; True and False are none, and neither is 2.0.

    Args:
        name: The argument's, for the error.
        value: What was passed.
        at_least: The lowest number that is allowed; None for any.

    Raises:
        ValueError: It is of another type, or lower.
    """
    if isinstance(value, bool) or not isinstance(value, int) or (at_least is not None and value < at_least):
        wanted = "a whole number" if at_least is None else f"a whole number of at least {at_least}"
        raise ValueError(f"{name}={value!r}: expected {wanted}.")
    return value
