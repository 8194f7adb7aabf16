"""Checks for reading what `--numbers FILE` of a command wrote; anything else is a clear error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TEXTS = ("task", "split", "head_sha256")
_COUNTS = ("prompts", "n", "skip", "unverified")


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
    """Check the fields that say which prompts and which head the numbers belong to.

    Raises:
        TypeError: A name is not text, or a count is not a whole number.
    """
    for names, kind in ((_TEXTS, str), (_COUNTS, int)):
        for name in names:
            if name in values and not isinstance(values[name], kind):
                raise TypeError(f"{name} is {values[name]!r}")
