"""Files written whole or not at all: under another name first and then renamed, so that no partial file is left."""

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

_FULL = (errno.ENOSPC, errno.EDQUOT)
# The names of [`replacing`]; those of earlier versions had no number
_PARTIAL = re.compile(r".+(\.[0-9a-f]{8}|\.(jsonl?|safetensors|md|py|txt|svg|png|html))\.partial")


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield another name in the same folder to write to; the file of that name then replaces `file`.

    The name is no other process's, so that two that write the same file leave one of the two, whole.

    Raises:
        OSError: The file cannot be written, e.g. on a full disk: says which file, why, and what to do.
    """
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")
    try:
        with reporting_writes(file):
            yield partial
            os.replace(partial, file)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def reporting_writes(place: Path) -> Iterator[None]:
    """Replace errors of writing by an OSError in one line, which names the file or folder and says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno is None:
            raise  # in our own words already
        reason = getattr(error, "strerror", None) or str(error)
        advice = (
            "If the disk is full, make room and run the same command again: it resumes after what was written before."
            if is_full_disk(error) or isinstance(error, SafetensorError)
            else "Check the folder and its permissions, or choose another one."
        )
        raise OSError(f"{str(place)!r} cannot be written ({reason}). {advice}") from error


def is_full_disk(error: BaseException) -> bool:
    """Whether an error says that a disk, or the user's share of it, is full; safetensors says it in words."""
    return getattr(error, "errno", None) in _FULL or any(f"(os error {code})" in str(error) for code in _FULL)


def is_leftover(name: str) -> bool:
    """Whether a file of this name is what a killed process had not yet written whole."""
    return _PARTIAL.fullmatch(name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a folder, which no other process may be writing into."""
    for file in folder.glob("*.partial"):
        if is_leftover(file.name):
            file.unlink(missing_ok=True)


def write_arrays(file: Path, arrays: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all.

    Args:
        file: The path; a file of this name is replaced.
        arrays: Tensors by name, on any device.
        metadata: Texts for the file's header.

    Raises:
        OSError: The file cannot be written, e.g. on a full disk.
    """
    with replacing(file) as partial:
        save_file({name: array.contiguous() for name, array in arrays.items()}, partial, metadata)


def write_text(file: Path, text: str) -> None:
    """Write a text file in UTF-8 whole or not at all; a file of this name is replaced.

    Raises:
        OSError: The file cannot be written, e.g. on a full disk.
    """
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")
