"""RowsTask: a task whose problems are the rows of a dataset on the Hub or of a file."""

import dataclasses
import functools
import hashlib
import logging
import os
import random
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from .._checks import quoted
from .row_files import raw_bytes, read_rows
from .task import Problem, split_of

logger = logging.getLogger(__name__)


@functools.cache
def _warn_once(message: str) -> None:
    # Commands read the problems before they load a model, and again when they sample
    logger.warning(message)


class RowsTask(ABC):
    """Problems made from rows, in an order that depends on a seed.

    A dataset on the Hub keeps its own splits. A file has none: a hash of the question puts about a quarter of its rows
    into "test" and the rest into "train", so that no prompt is in both, whichever other rows the file has.

    Args:
        source: A file of rows, see [`read_rows`]. Default: the task's dataset on the Hub, through `datasets`.

    Raises:
        ValueError: There is neither a file nor a dataset.
    """

    name: str
    splits: tuple[str, ...] = ("train", "test")
    #: The dataset's id on the Hub and its configuration; None for tasks that are always read from a file.
    hub_dataset: tuple[str, str | None] | None = None

    def __init__(self, source: str | os.PathLike[str] | None = None):
        if source is None and self.hub_dataset is None:
            raise ValueError(f"The task {self.name!r} needs a file with one JSON object per line.")
        self.source = None if source is None else Path(source)
        if source is not None:
            self.name = f"{self.name}:{Path(source).name}"
            self.splits = ("train", "test")

    @property
    def labelled_by(self) -> dict[str, str]:
        """What determines the labels besides the task's name: a hash of the file, whose rows can be edited."""
        return {} if self.source is None else {"rows_sha256": hashlib.sha256(raw_bytes(self.source)).hexdigest()}

    @abstractmethod
    def problem(self, row: dict[str, Any]) -> Problem:
        """The problem of a row. A KeyError names a missing field, a ValueError one of an unexpected type."""

    def problems(self, split: str, count: int, seed: int = 0) -> list[Problem]:
        """`count` distinct problems of a split, the same for the same seed; a longer list starts with a shorter one.

        Raises:
            ValueError: The split is unknown, a field of a row is missing or of an unexpected type, the file repeats a
                prompt, or there are too few problems.
        """
        if split not in self.splits:
            raise ValueError(f"Unknown split {split!r} of the task {self.name!r}: expected one of {self.splits}.")
        found = self._made(self._rows(split))
        if self.source is not None:
            found = [problem for problem in found if split_of(problem.question) == split]
        if len(found) < count:
            raise ValueError(
                f"The split {split!r} of the task {self.name!r} has {len(found)} problems: ask for fewer than {count}."
            )
        random.Random(f"{self.name}/{split}/{seed}").shuffle(found)
        return found[:count]

    def _rows(self, split: str) -> list[dict[str, Any]]:
        if self.source is not None:
            return read_rows(self.source)
        dataset, config = self.hub_dataset or (self.name, None)
        return load_rows(dataset, config, split)

    def _made(self, rows: list[dict[str, Any]]) -> list[Problem]:
        problems: dict[str, Problem] = {}
        for number, row in enumerate(rows, start=1):
            try:
                problem = self.problem(row)
            except KeyError as error:
                raise ValueError(
                    f"Row {number} of the task {self.name!r} has no field {error}; its fields are "
                    f"{quoted(sorted(row))}."
                ) from error
            except ValueError as error:
                raise ValueError(f"Row {number} of the task {self.name!r}: {error}") from error
            if self.source is not None and problem.id in problems:
                raise ValueError(
                    f"Row {number} of {str(self.source)!r} repeats the prompt "
                    f"{problem.question[:80]!r}. Remove it: every prompt may occur only once."
                )
            problems.setdefault(problem.id, dataclasses.replace(problem, row=number))
        if len(problems) < len(rows):
            # The user of a public dataset cannot remove them
            _warn_once(
                f"{len(rows) - len(problems)} of the {len(rows)} rows of the task {self.name!r} repeat a prompt; the "
                "first of each is kept."
            )
        return list(problems.values())


def text_of(row: dict[str, Any], field: str) -> str:
    """The text in a field of a row.

    Raises:
        ValueError: The field is not text, or holds what stands for no character.
        KeyError: The field does not exist.
    """
    value = row[field]
    if not isinstance(value, str):
        raise ValueError(f"Expected text in the field {field!r}, got {type(value).__name__} {quoted(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"The text in the field {field!r} has half of a surrogate pair at position {error.start}, which stands for "
            "no character: write it whole."
        ) from error
    return value


def texts_of(row: dict[str, Any], field: str) -> list[str]:
    """The list of texts in a field of a row; numbers among them become text.

    Raises:
        ValueError: The field is not a list of texts.
        KeyError: The field does not exist.
    """
    value = row[field]
    if not isinstance(value, list) or not all(isinstance(text, str | int | float) for text in value):
        raise ValueError(
            f"Expected a list of texts in the field {field!r}, got {type(value).__name__} {quoted(value)}."
        )
    return [str(text) for text in value]


def load_rows(dataset: str, config: str | None, split: str) -> list[dict[str, Any]]:
    """A split of a dataset on the Hub.

    Raises:
        ValueError: The package `datasets` is not installed.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ValueError(
            f"The dataset {dataset!r} needs the package `datasets`: run `pip install 'hf-elhsr[tasks]'`, or pass a "
            "file with one JSON object per line."
        ) from error
    return [dict(row) for row in load_dataset(dataset, config, split=split)]
