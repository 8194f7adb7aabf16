"""JsonLinesTask: a user's own prompts in a file, with a verifier that is a Python function."""

import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .rows import RowsTask, text_of
from .task import Problem, question_id

#: From a completion and the row's `answer` to whether the completion is correct.
Verifier = Callable[[str, str], bool]


class JsonLinesTask(RowsTask):
    """Rows with `question`, optionally `answer` (passed to the verifier) and optionally `family`.

    Args:
        source: The file, with one JSON object per line.
        verifier: Called with a completion and the row's answer ("" without one); returns whether it is correct.
        extract: Called with a completion; returns its final answer, for majority vote. Default: completions have no
            final answer, so there is no majority vote.
        functions: Entries of `labelled_by` that describe these two, from [`described_function`]. Default: none.
    """

    name = "json_lines"

    def __init__(
        self,
        source: str | os.PathLike[str],
        verifier: Verifier,
        extract: Callable[[str], str | None] = lambda completion: None,
        functions: dict[str, str] | None = None,
    ):
        super().__init__(source)
        self.name = Path(source).name
        self._verifier, self._extract, self._functions = verifier, extract, functions or {}

    @property
    def labelled_by(self) -> dict[str, str]:
        return super().labelled_by | self._functions

    def problem(self, row: dict[str, Any]) -> Problem:
        question = text_of(row, "question")
        return Problem(question_id(question), question, str(row.get("answer", "")), str(row.get("family", self.name)))

    def extract(self, completion: str) -> str | None:
        return self._extract(completion)

    def verify(self, problem: Problem, completion: str) -> bool:
        return self._verifier(completion, problem.answer)


def described_function(option: str, place: str) -> dict[str, str]:
    """What is recorded for an option 'file.py:name': the same without folders, and a hash of the file."""
    path = Path(place.rpartition(":")[0])
    return {
        option: f"{path.name}:{place.rpartition(':')[2]}",
        f"{option}_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def load_function(place: str) -> Callable[..., Any]:
    """The function at 'file.py:name'. The user's file is executed.

    Raises:
        ValueError: The file does not exist, or it has no such function.
    """
    path, colon, name = place.rpartition(":")
    file = Path(path)
    if not colon or file.suffix != ".py" or not file.is_file():
        raise ValueError(f"Expected a function as 'file.py:name', got {place!r}: this Python file does not exist.")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path!r} cannot be read as a Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{path!r} has no function {name!r}.")
    return function
