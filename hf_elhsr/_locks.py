"""Locks that keep a second process out of a folder, or off a file, while one writes there.

The lock is the operating system's (`flock`) on a file that names its owner, so it is released however the owner ends.
Where there is no such lock, on Windows and some network file systems, a warning says that nothing keeps two processes
apart.
"""

import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transformers.utils import logging

from ._files import reporting_writes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.get_logger(__name__)

#: Seconds to wait for an owner: most need a moment only, to write a few files.
PATIENCE = 3.0
_PAUSE = 0.05
_SUFFIX = ".lock"
_COMMAND_CHARACTERS = 200
# What this process holds: the thread that took the lock and the lock's file, by the lock's path
_held: dict[Path, tuple[int, int]] = {}


@contextmanager
def owning(folder: Path, file: str | None = None) -> Iterator[None]:
    """Hold the lock of a folder, or of one file in it; the folder is created if it does not exist.

    Args:
        folder: The folder.
        file: The name of the file. Default: the whole folder.

    Raises:
        ValueError: Another process, or another piece of work of this one, has the lock: names it.
        OSError: The folder cannot be created or written.
    """
    lock = _lock_file(folder, file)
    existed = folder.is_dir()
    with reporting_writes(folder):
        folder.mkdir(parents=True, exist_ok=True)
    descriptor = _taken(folder if file is None else folder / file, lock)
    key = lock.resolve()
    _held[key] = (threading.get_ident(), descriptor)
    try:
        yield
    finally:
        # A forked child that gets here no longer has it
        if _held.pop(key, None) is not None:
            # Before the lock is released, so that nobody else has it when its file goes; see `_is_current`
            with suppress(OSError):
                lock.unlink()
                if not existed:
                    folder.rmdir()  # if nothing was written into it
            os.close(descriptor)


def refuse_owned(folder: Path) -> None:
    """Refuse a folder that another process is writing into, before long work for it begins.

    Raises:
        ValueError: See [`owning`].
    """
    # A folder that cannot be written, or named, is reported by what writes into it
    with suppress(OSError):
        if _lock_file(folder).is_file():
            with owning(folder):
                pass


def is_lock(name: str) -> bool:
    """Whether a file of this name is a lock."""
    return name.startswith(".") and name.endswith(_SUFFIX)


def _lock_file(folder: Path, file: str | None = None) -> Path:
    return folder / (_SUFFIX if file is None else f".{file}{_SUFFIX}")


def _taken(place: Path, lock: Path) -> int:
    """The descriptor of the lock's file, locked."""
    deadline = time.monotonic() + PATIENCE
    while True:
        held_by_thread, _ = _held.get(lock.resolve(), (None, 0))
        if held_by_thread is None:
            with reporting_writes(lock.parent):
                descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
            if _locked(descriptor, lock):
                return descriptor
            os.close(descriptor)
        # A thread that waited for itself would wait for ever
        if held_by_thread == threading.get_ident() or time.monotonic() > deadline:
            raise ValueError(
                f"{str(place)!r} is in use by {_owner(lock)}: wait until it has ended, or use a different folder."
            )
        time.sleep(_PAUSE)


def _locked(descriptor: int, lock: Path) -> bool:
    """Try to lock an open file, and then name this process in it."""
    if fcntl is None:
        logger.warning_once(
            "This system has no file locks (fcntl), so two processes could write into one folder: start only one."
        )
    else:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            logger.warning_once(
                f"{str(lock.parent)!r} is on a file system without locks ({error.strerror}), so two processes could "
                "write into it: start only one."
            )
    if not _is_current(descriptor, lock):
        return False
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "command": _command(), "since": _now()}
    with reporting_writes(lock):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
    return True


def _is_current(descriptor: int, lock: Path) -> bool:
    """Whether the open file is still the one of this name: its last owner may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), lock.stat())
    except FileNotFoundError:
        return False


def _owner(lock: Path) -> str:
    """The owner, in words."""
    try:
        owner = json.loads(lock.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']} (`{owner['command']}`, since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _command() -> str:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else "python"
    return command if len(command) <= _COMMAND_CHARACTERS else f"{command[:_COMMAND_CHARACTERS]}..."


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _forget() -> None:
    """In a forked child: drop the parent's locks, which would otherwise outlive the parent."""
    for _, descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
