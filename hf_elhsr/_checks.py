"""Checks of arguments that are the same throughout the package."""

from typing import Any, TypeGuard


def is_whole_number(value: Any, at_least: int | None = None) -> TypeGuard[int]:
    """Whether a value is a whole number, and not too low; booleans and floats such as 2.0 are not whole numbers."""
    return isinstance(value, int) and not isinstance(value, bool) and (at_least is None or value >= at_least)


def whole_number(name: str, value: Any, at_least: int | None = 1) -> int:
    """Return `value` if it is a whole number, see [`is_whole_number`].

    Args:
        name: The argument's name, for the error.
        value: The value that was passed.
        at_least: The lowest number that is allowed; None for any.

    Raises:
        ValueError: It is of a different type, or lower.
    """
    if not is_whole_number(value, at_least):
        wanted = "a whole number" if at_least is None else f"a whole number of at least {at_least}"
        raise ValueError(f"{name}={value!r}: expected {wanted}.")
    return value
