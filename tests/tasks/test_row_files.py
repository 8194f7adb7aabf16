"""Files of prompts: every kind that people have gives the same rows, or an error that says what to do."""

import csv
import gzip
import io
import json
import sys

import pytest

from hf_elhsr.tasks import find_task
from hf_elhsr.tasks.row_files import ROW_FILES, read_rows

ROWS = [{"question": f"Say {i}, in\n\u2028grün.", "answer": str(i)} for i in range(9)]


def separated(separator):
    text = io.StringIO()
    writer = csv.DictWriter(text, ROWS[0], delimiter=separator)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def parquet():
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    written = io.BytesIO()
    write_table(arrow.Table.from_pylist(ROWS), written)
    return written.getvalue()


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CONTENTS = {
    ".jsonl": lambda: LINES,
    ".ndjson": lambda: LINES,
    ".json": lambda: json.dumps(ROWS, indent=2).encode(),
    ".csv": lambda: separated(","),
    ".tsv": lambda: separated("\t"),
    ".parquet": parquet,
}


def test_every_kind_is_tried():
    assert tuple(CONTENTS) == ROW_FILES


@pytest.mark.parametrize("ending", ROW_FILES)
@pytest.mark.parametrize("name", ["prompts{}", "PROMPTS{}.gz", "upper{}"])
def test_rows_are_the_same_whatever_the_kind(tmp_path, ending, name):
    content = CONTENTS[ending]()
    file = tmp_path / name.format(ending.upper() if name.startswith("upper") else ending)
    file.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    assert read_rows(file) == ROWS
    (tmp_path / "mine.py").write_text("def check(completion, answer):\n    return answer in completion\n")
    task = find_task(str(file), f"{tmp_path / 'mine.py'}:check")
    problems = [problem for split in task.splits for problem in everything(task, split)]
    assert sorted((problem.row, problem.question) for problem in problems) == [
        (number, row["question"]) for number, row in enumerate(ROWS, start=1)
    ]


def everything(task, split):
    for count in range(len(ROWS), 0, -1):
        try:
            return task.problems(split, count)
        except ValueError:
            continue
    return []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.json", LINES),
        ("one.json", json.dumps(ROWS[0]).encode()),
        ("named.jsonl.gz", LINES),
        ("unnamed.jsonl", gzip.compress(LINES, mtime=0)),
        ("prompts", LINES),
    ],
)
def test_other_names_for_the_same(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read_rows(tmp_path / name) == ROWS[: 1 if name.startswith("one") else None]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", LINES, r"holds JSON, .*: name it .jsonl"),
        ("p.csv", b"question,answer\na,b,c\n", r"ends in line 2 .* has 3 values, and the first line 2 names"),
        ("p.csv", b'question\n"half', r"Line \d of .* does not hold values separated by ','"),
        ("p.csv", b"question,question\na,b\n", "repeats a name"),
        ("p.json", b'{"data": [\n]}', r"expected a list of objects, one for each prompt, got dict"),
        ("p.json", b'[{"question": "x"}, 5]', r"Item 2 of .*: expected a JSON object, got 5"),
        ("p.json", b'[{"question": "x"}', "is not JSON"),
        ("p.jsonl", b'[\n{"question": "x"}\n]', r"Line 1 .* is not JSON"),
        ("p.jsonl", b"9" * 5000, "Line 1 .* is not JSON"),
        ("p.jsonl", b"[" * 100_000, "Line 1 .* is not JSON"),
        ("p.jsonl.gz", gzip.compress(LINES, mtime=0)[:40], "cut short or damaged"),
        ("p.parquet", b"PAR1", "is not a Parquet file"),
        ("p.txt", b"What is 2 + 3?\n", r"Name the file by its kind: .jsonl, .* or .parquet, also with .gz"),
        ("p.jsonl", b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        read_rows(tmp_path / name)
    assert len(str(raised.value).replace(str(tmp_path), "")) < 500


def test_parquet_without_its_package(tmp_path, monkeypatch):
    (tmp_path / "p.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="run `pip install pyarrow`"):
        read_rows(tmp_path / "p.parquet")


@pytest.mark.parametrize("name", ["prompts.txt", "prompts.xlsx", "prompts.jsonl.zip", "no_ending"])
def test_a_task_that_is_another_kind_of_file(tmp_path, name):
    with pytest.raises(ValueError, match=r"no file of prompts that can be read, which end in .jsonl, .ndjson, .json"):
        find_task(name, f"{tmp_path / 'mine.py'}:check")


def test_half_of_a_character_is_told_with_its_row(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"question": "fine"}\n{"question": "not \\ud83d fine"}\n')
    (tmp_path / "mine.py").write_text("def check(completion, answer):\n    return True\n")
    with pytest.raises(ValueError, match=r"Row 2 of the task .*half of a surrogate pair at position 4"):
        find_task(str(tmp_path / "p.jsonl"), f"{tmp_path / 'mine.py'}:check").problems("train", 1)


def test_an_error_quotes_a_part_of_a_long_value(tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps({"question": ["long"] * 10_000}) + "\n")
    (tmp_path / "mine.py").write_text("def check(completion, answer):\n    return True\n")
    with pytest.raises(ValueError, match=r"Row 1 .*got list \['long', ") as raised:
        find_task(str(tmp_path / "p.jsonl"), f"{tmp_path / 'mine.py'}:check").problems("train", 1)
    assert len(str(raised.value)) < 400
