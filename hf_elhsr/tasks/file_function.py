"""FileFunction: a function in a user's Python file, named as 'file.py:function'."""

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from .._visible_text import quoted


class UnusableFile(ValueError):
    """A user's Python file cannot be executed, or lacks the function."""


class FileFunction:
    """A function in a file, which is executed at the first call; as a pickle arrives, at once.

    The file's neighbours can be imported, as if Python had been started with it.

    Args:
        place: 'file.py:function'.

    Raises:
        UnusableFile: There is no such Python file.
    """

    def __init__(self, place: str):
        path, colon, self._name = place.rpartition(":")
        # Calls may come after a change of the working directory
        self._path, self._file = path, Path(path).absolute()
        if not colon or self._file.suffix != ".py" or not self._file.is_file():
            raise UnusableFile(
                f"Expected a function as 'file.py:name', got {quoted(place)!r}: this Python file does not exist."
            )
        self._sha256 = hashlib.sha256(self._file.read_bytes()).hexdigest()
        self._function: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        return self.load()(*args)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_function": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.load()

    def described(self, option: str) -> dict[str, str]:
        """What is recorded of it under an option's name: the place without folders, and a hash of the file."""
        return {option: f"{self._file.name}:{self._name}", f"{option}_sha256": self._sha256}

    def load(self) -> Callable[..., Any]:
        """The function itself; executes the file if that was not done yet.

        Raises:
            UnusableFile: The file cannot be executed or has no such function, or it has changed: labels from before and
                after must not be mixed.
        """
        if self._function is None:
            if not self._file.is_file() or hashlib.sha256(self._file.read_bytes()).hexdigest() != self._sha256:
                raise UnusableFile(
                    f"{self._path!r} was changed or removed while it was in use: run the command again, after "
                    "`hf-elhsr relabel` if rollouts were labelled with the file as it was."
                )
            function = getattr(_executed(self._file, self._path), self._name, None)
            if not callable(function):
                raise UnusableFile(f"{self._path!r} has no function {self._name!r}.")
            self._function = function
        return self._function


def _executed(file: Path, path: str) -> ModuleType:
    """The module of a file, registered in sys.modules, where dataclasses look for it."""
    with _first_in_path(str(file.parent)):
        # Under its own name if that is free: then neighbours can import it, and its objects be pickled
        name = file.stem if _is_what_is_imported(file) else f"{file.stem}@{file}"
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise UnusableFile(f"{path!r} cannot be read as a Python file.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except KeyboardInterrupt:
            del sys.modules[name]
            raise
        except BaseException as error:
            # SystemExit included: a file that is not meant to be imported
            del sys.modules[name]
            raise UnusableFile(f"{path!r} cannot be loaded{_line(error, file)}: {_described(error)}") from error
    return module


def _is_what_is_imported(file: Path) -> bool:
    """Whether an import of the file's name would execute the file, now that its folder comes first."""
    if not file.stem.isidentifier() or file.stem in sys.modules:
        return False
    importlib.invalidate_caches()
    found = importlib.util.find_spec(file.stem)
    return found is not None and found.origin == os.fspath(file)


@contextmanager
def _first_in_path(folder: str) -> Iterator[None]:
    """Imports find the folder's modules first, as for a script, and afterwards still find them, after all others."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def _line(error: BaseException, file: Path) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if os.fspath(file) == frame.filename]
    return f", at line {frames[-1].lineno}" if frames else ""


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {quoted(str(error))}"
