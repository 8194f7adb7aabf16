"""Checks of arguments that are the same throughout the package, and how errors quote what they got."""

from typing import Any, TypeGuard

# Longer quotations hide what an error says
_MOST_CHARACTERS = 200
# What tensors of counts and of numbers can hold
_LARGEST = 2**63 - 1
_LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127


def quoted(value: Any) -> str:
    """What an error shows of a value that it got: its `repr` in one line, at most 200 characters of it."""
    try:
        return shortened(repr(value))
    except (ValueError, RecursionError):  # whole numbers of thousands of digits; lists inside lists inside lists
        return f"a value of type {type(value).__name__}"


def shortened(text: str) -> str:
    """What an error shows of a text that it quotes: one line, at most 200 characters of it."""
    # What follows is cut off anyway, and may be long
    line = " ".join(text[: 4 * _MOST_CHARACTERS].split())
    return line if len(line) <= _MOST_CHARACTERS else f"{line[: _MOST_CHARACTERS - 1]}…"


def is_whole_number(value: Any, at_least: int | None = None) -> TypeGuard[int]:
    """Whether a value is a whole number, and not too low; booleans and floats such as 2.0 are not whole numbers."""
    return isinstance(value, int) and not isinstance(value, bool) and (at_least is None or value >= at_least)


def whole_number(name: str, value: Any, at_least: int | None = 1, at_most: int | None = None) -> int:
    """Return `value` if it is a whole number, see [`is_whole_number`].

    Args:
        name: The argument's name, for the error.
        value: The value that was passed.
        at_least: The lowest number that is allowed; None for any.
        at_most: The highest number that is allowed; None for any that 64 bits hold.

    Raises:
        ValueError: It is of a different type, lower, or higher.
    """
    if not is_whole_number(value, at_least):
        wanted = "a whole number" if at_least is None else f"a whole number of at least {at_least}"
        raise ValueError(f"{name}={quoted(value)}: expected {wanted}.")
    most = _LARGEST if at_most is None else at_most
    if not -_LARGEST <= value <= most:
        raise ValueError(f"{name}={quoted(value)}: expected at most {most:,}.")
    return value


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is an int or a float that float32 can hold; True, False, NaN and infinity are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST_FLOAT32


def true_or_false(name: str, value: Any) -> bool:
    """Return `value` as a bool if it is one, or the number 0 or 1, also where NumPy or torch made it.

    Raises:
        ValueError: It is something else.
    """
    single = value.item() if getattr(value, "shape", None) == () else value
    if not isinstance(single, int) or single not in (True, False):
        raise ValueError(f"{name}={quoted(value)}: expected True or False.")
    return bool(single)
