"""JsonLinesTask: a user's own prompts in a file, with a verifier that is a Python function."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .rows import RowsTask, text_of
from .task import Problem, question_id
from .thoughts import without_thoughts

#: From a completion and the row's `answer`, any JSON value, to whether the completion is correct.
Verifier = Callable[[str, Any], bool]


def no_answer(completion: str) -> None:
    """The `extract` of completions without a final answer."""


class JsonLinesTask(RowsTask):
    """Rows with `question`, optionally `answer` (passed to the verifier) and optionally `family`.

    Args:
        source: The file, with one JSON object per line.
        verifier: Called with a completion and the row's answer; returns whether it is correct. The completion comes
            [`without_thoughts`]; the answer as the JSON value that it is, such as "12", 12 or ["12", "twelve"], and as
            "" without one.
        extract: Called with a completion; returns its final answer, for majority vote. Default: completions have no
            final answer, so there is no majority vote.
        functions: Entries of `labelled_by` that describe these two. Default: none.
    """

    name = "json_lines"

    def __init__(
        self,
        source: str | os.PathLike[str],
        verifier: Verifier,
        extract: Callable[[str], str | None] = no_answer,
        functions: dict[str, str] | None = None,
    ):
        super().__init__(source)
        self.name = Path(source).name
        self._verifier, self._extract, self._functions = verifier, extract, functions or {}

    @property
    def labelled_by(self) -> dict[str, str]:
        return super().labelled_by | self._functions

    def problem(self, row: dict[str, Any]) -> Problem:
        question, answer = text_of(row, "question"), row.get("answer", "")
        if answer is None or answer != answer:
            # As pandas writes a missing value; a verifier that looks for "" would find it in every completion
            raise ValueError(f"Expected an 'answer', got {answer}: remove the field if the verifier needs none.")
        return Problem(question_id(question), question, answer, str(row.get("family", self.name)))

    def extract(self, completion: str) -> str | None:
        return self._extract(without_thoughts(completion))

    def verify(self, problem: Problem, completion: str) -> bool:
        # A list that the verifier changes is the problem's
        return self._verifier(without_thoughts(completion), copy.deepcopy(problem.answer))
