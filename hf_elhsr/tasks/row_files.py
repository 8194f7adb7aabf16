"""read_rows: the rows of a file of prompts, in one of the formats that datasets come in."""

import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._checks import quoted, shortened

#: The endings of files whose rows can be read; each may be followed by .gz.
ROW_FILES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
# Files that people have prompts in but that are not read, so that they are recognised as files
_OTHER_FILES = (
    *(".txt", ".md", ".yaml", ".yml", ".xml", ".xls", ".xlsx", ".ods", ".arrow", ".feather", ".pkl", ".pickle"),
    *(".npy", ".npz", ".db", ".sqlite", ".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".py"),
)
# The first bytes of a gzip file
_GZIP = b"\x1f\x8b"

_Row = dict[str, Any]


def is_row_file(name: str) -> bool:
    """Whether rows are read from a file of this name, by its ending, in lower or upper case."""
    return _ending(name) is not None


def looks_like_a_file(name: str) -> bool:
    """Whether a name is meant to be that of a file, which may be of a kind that is not read."""
    return is_row_file(name) or name.lower().endswith((*_OTHER_FILES, ".gz")) or os.path.isfile(name)


def expected_files() -> str:
    """The kinds of files that are read, in words."""
    return f"{', '.join(ROW_FILES[:-1])} or {ROW_FILES[-1]}, also with .gz"


def read_rows(file: Path) -> list[_Row]:
    """The rows of a file: objects by the names of their fields.

    JSON Lines (.jsonl, .ndjson; empty lines are skipped), JSON (.json: one list of objects), comma- or tab-separated
    values (.csv, .tsv; the first line has the names, and all values are text), or Parquet; all of them also compressed
    with gzip. Text is UTF-8, with or without a byte order mark.

    A file with another ending is read as JSON Lines.

    Raises:
        ValueError: The file does not exist, or its content is not what its name says.
    """
    content = raw_bytes(file)
    if content.startswith(_GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{str(file)!r} is a gzip file that was cut short or damaged ({error}): compress it again."
            ) from error
    ending = _ending(file.name)
    if ending is not None:
        return _READERS[ending](file, content)
    try:
        return _json_lines(file, content)
    except ValueError as error:
        raise ValueError(f"{error} Name the file by its kind: {expected_files()}.") from error


def raw_bytes(file: Path) -> bytes:
    """The content of a file of rows, as it is.

    Raises:
        ValueError: The file does not exist.
    """
    # Not Path.is_file, which raises an error for a name that is too long
    if not os.path.isfile(file):
        raise ValueError(f"{quoted(str(file))} does not exist: expected a file with one JSON object per line.")
    return file.read_bytes()


def _ending(name: str) -> str | None:
    ending = Path(name.lower().removesuffix(".gz")).suffix
    return ending if ending in ROW_FILES else None


def _text(file: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(file)!r} is not UTF-8 ({error}): save it in this encoding.") from error


def _json_lines(file: Path, content: bytes) -> list[_Row]:
    rows = []
    # Not splitlines: JSON strings may contain other line separators
    for number, line in enumerate(_text(file, content).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"Line {number} of {str(file)!r} is not JSON: {shortened(str(error))}.") from error
        if not isinstance(row, dict):
            advice = ": a list over several lines is a .json file" if line.strip() == "[" else ""
            raise ValueError(
                f"Line {number} of {str(file)!r}: expected a JSON object, got {type(row).__name__}{advice}."
            )
        rows.append(row)
    return rows


def _json(file: Path, content: bytes) -> list[_Row]:
    text = _text(file, content)
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{"):
            # Several objects, one after the other: JSON Lines by another name
            return _json_lines(file, content)
        raise ValueError(f"{str(file)!r} is not JSON: {shortened(str(error))}.") from error
    if isinstance(rows, dict) and "\n" not in text.strip():
        return [rows]
    if not isinstance(rows, list):
        raise ValueError(
            f"{str(file)!r}: expected a list of objects, one for each prompt, got {type(rows).__name__}: write the "
            "list alone, or one object per line as .jsonl."
        )
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"Item {number} of {str(file)!r}: expected a JSON object, got {quoted(row)}.")
    return rows


def _separated(file: Path, content: bytes, separator: str) -> list[_Row]:
    text = _text(file, content)
    if text.lstrip().startswith(("{", "[")):
        raise ValueError(f"{str(file)!r} holds JSON, not values with a line of names: name it .jsonl, or .json.")
    # newline="": line ends inside quotes belong to the values
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows = []
    try:
        names = next(reader, [])
        if len(set(names)) < len(names):
            raise ValueError(f"The first line of {str(file)!r} repeats a name: {quoted(names)}.")
        for values in reader:
            if not values:
                continue
            if len(values) != len(names):
                raise ValueError(
                    f"The row that ends in line {reader.line_num} of {str(file)!r} has {len(values)} values, and the "
                    f"first line {len(names)} names ({shortened(', '.join(names))}): quote values that contain "
                    f"{separator!r}."
                )
            rows.append(dict(zip(names, values, strict=True)))
    except csv.Error as error:
        raise ValueError(
            f"Line {reader.line_num} of {str(file)!r} does not hold values separated by {separator!r}: {error}."
        ) from error
    return rows


def _parquet(file: Path, content: bytes) -> list[_Row]:
    try:
        from pyarrow import ArrowException, BufferReader, parquet
    except ImportError as error:
        raise ValueError(
            f"{str(file)!r} is a Parquet file, which needs the package `pyarrow`: run `pip install pyarrow`, or pass "
            "a file with one JSON object per line."
        ) from error
    try:
        rows: list[_Row] = parquet.read_table(BufferReader(content)).to_pylist()
    except (ArrowException, OSError) as error:
        raise ValueError(f"{str(file)!r} is not a Parquet file: {shortened(str(error))}.") from error
    return rows


_READERS: dict[str, Callable[[Path, bytes], list[_Row]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": lambda file, content: _separated(file, content, ","),
    ".tsv": lambda file, content: _separated(file, content, "\t"),
    ".parquet": _parquet,
}
