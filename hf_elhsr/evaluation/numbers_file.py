"""expecting: what `--numbers FILE` of a command wrote is read back, and anything else is a clear error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TEXTS = ("task", "split", "head_sha256")
_COUNTS = ("prompts", "n", "skip", "unverified")


@contextmanager
def expecting(kind: str, command: str) -> Iterator[None]:
    """Make a ValueError of whatever values that are missing, unknown or of the wrong type lead to.

    Args:
        kind: What is read.
        command: Which wrote it.
    """
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"This is no {kind}: expected what `{command}` wrote ({type(error).__name__}: {error})."
        ) from error


def check_names(values: dict[str, Any]) -> None:
    """Refuse numbers that do not say of which prompts and of which head they are.

    Raises:
        TypeError: A name is no text, or a count no whole number.
    """
    for names, kind in ((_TEXTS, str), (_COUNTS, int)):
        for name in names:
            if name in values and not isinstance(values[name], kind):
                raise TypeError(f"{name} is {values[name]!r}")
