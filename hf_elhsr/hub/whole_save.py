"""A head's folder changes as a whole: files are written apart, count together from one rename on, and are then moved.

    .saving-*       files that are being written; they do not count
    .saved          files that count: what reads a head looks here first, see [`current_file`]

Whoever owns the folder next finishes what a killed process left.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .._files import remove_leftovers, reporting_writes
from .._locks import owning
from ..head.files import COMMITTED

_STAGED, _REPLACED = ".saving-", ".replaced-"
# Folders of a head's folder that files are written into one by one
_FOLDERS = ("evaluation", "tradeoff")


@contextmanager
def owning_head_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a head's folder, without what killed processes left in it.

    Raises:
        ValueError: Another process is writing into it.
        OSError: The folder cannot be written.
    """
    with owning(folder):
        with reporting_writes(folder):
            _put_in_place(folder)
            for place in (folder, *(folder / name for name in _FOLDERS)):
                remove_leftovers(place)
            for left in [*folder.glob(f"{_STAGED}*"), *folder.glob(f"{_REPLACED}*")]:
                shutil.rmtree(left)
        yield


@contextmanager
def replacing_together(folder: Path) -> Iterator[Path]:
    """Yield an empty folder; what is written there then replaces what has the same name in `folder`, all or nothing.

    The lock of [`owning_head_folder`] must be held.

    Raises:
        OSError: Something cannot be written: nothing has changed.
    """
    staged = folder / f"{_STAGED}{secrets.token_hex(4)}"
    with reporting_writes(folder):
        staged.mkdir()
        try:
            yield staged
            _check_replaceable(staged, folder)
            _flush(staged)
            os.rename(staged, folder / COMMITTED)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        _put_in_place(folder)


def is_of_a_save(path: str) -> bool:
    """Whether a path inside a head's folder is one of these folders or in one."""
    return path.startswith((COMMITTED + "/", _STAGED, _REPLACED))


def _check_replaceable(staged: Path, folder: Path) -> None:
    for new in staged.iterdir():
        old = folder / new.name
        if old.exists() and old.is_dir() != new.is_dir():
            expected, found = ("file", "folder") if old.is_dir() else ("folder", "file")
            raise OSError(f"{str(old)!r} cannot be written: expected a {expected}, got a {found}. Move it away.")


def _flush(folder: Path) -> None:
    """Have the disk write the files before the rename that makes them count."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())


def _put_in_place(folder: Path) -> None:
    """Move committed files into their places."""
    committed = folder / COMMITTED
    if not committed.is_dir():
        return
    for new in sorted(committed.iterdir()):
        old = folder / new.name
        if old.is_dir():
            replaced = folder / f"{_REPLACED}{secrets.token_hex(4)}"
            os.rename(old, replaced)
            os.rename(new, old)
            shutil.rmtree(replaced)
        else:
            os.replace(new, old)
    committed.rmdir()
