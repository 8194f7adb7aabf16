"""Paths on the command line: what they name, and whether they can be written, before any work begins."""

import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import TypeVar

from .._checks import quoted, shortened
from ..tasks import TASKS

_Path = TypeVar("_Path", str, Path, list[Path], None)


def expanded(value: _Path) -> _Path:
    """A path, or several, with `~` and environment variables replaced, which a shell replaces in some places only.

    It is a callback for options, also for those that take a path or an id on the Hub. What exists by the name as it is
    given is not changed.

    Raises:
        ValueError: There is no such user or variable.
    """
    if value is None:
        return None
    if isinstance(value, list):
        return [expanded(path) for path in value]
    return type(value)(_expanded(os.fspath(value)))


def expanded_task(value: str) -> str:
    """[`expanded`] for the value of `--task`, in which a file may follow a task's name."""
    first, colon, rest = value.partition(":")
    return f"{first}{colon}{expanded(rest)}" if colon and first in TASKS else expanded(value)


def check_folder(folder: Path, name_in_it: str = "") -> None:
    """Refuse a folder that files cannot be written to, or one of this name; it need not exist.

    Raises:
        ValueError: It is a file, inside a file, or must not be written to.
    """
    name = quoted(str(folder))
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise ValueError(f"{name} is not a folder: choose another name.")
    # Of os.path, which take a name that is too long for one that does not exist
    present = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(present):
        raise ValueError(f"{name} cannot be a folder, since {str(present)!r} is a file: choose another place.")
    try:
        # Not os.access, which knows neither full disks nor what the superuser may not write
        tempfile.TemporaryFile(dir=present).close()
        with contextlib.suppress(FileNotFoundError):
            # Names can be too long, or too many links deep
            os.stat(folder / name_in_it)
    except OSError as error:
        raise ValueError(f"{name} cannot be written ({error.strerror or error}): choose another place.") from error


def check_file(file: Path | None) -> None:
    """Refuse a file that cannot be written; neither it nor its folder need exist. None is no file.

    Raises:
        ValueError: It is a folder, or its folder must not be written to.
    """
    if file is None:
        return
    if os.path.isdir(file):
        raise ValueError(f"{quoted(str(file))} is a folder: name a file in it.")
    check_folder(file.parent, file.name)


def _expanded(path: str) -> str:
    if not path or os.path.lexists(path):
        return path
    found = os.path.expandvars(os.path.expanduser(path))
    if found.startswith("~"):
        raise ValueError(f"{quoted(path)} names no user's home: write ./ before what has this name.")
    if unknown := re.search(r"\$(\w+|\{[^}]*\})", found):
        raise ValueError(f"{quoted(path)}: the environment variable {shortened(unknown[0])} is not set.")
    return found
