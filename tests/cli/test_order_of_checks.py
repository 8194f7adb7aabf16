"""Mistakes are told before a model is loaded, which can take minutes: here there is none, and it is not looked for."""

import json
import os

import pytest

MODEL = ["--model", "./a/large/model"]
OWN = ["--task", "p.jsonl", "--verifier", "mine.py:check"]
SAMPLE = ["sample", "out", *MODEL, *OWN, "--prompts", "2", "--base-model", "org/name"]
EVALUATE = ["evaluate", "out", *MODEL, *OWN, "--head", "head", "--prompts", "2"]
GENERATE = ["generate", "Hi", *MODEL, "--head", "head"]
INSPECT = ["inspect", "Hi", *MODEL, "--head", "head"]
CONVERT = ["convert", "weights.pt", "out", *MODEL]
NUMBERS = [
    ("--top-p", "nan", "top_p=nan"),
    ("--top-p", "1.5", "top_p=1.5"),
    ("--temperature", "0", "temperature=0.0"),
    ("--temperature", "inf", "temperature=inf"),
    ("--seed", str(10**30), "seed=1000"),
    ("--max-new-tokens", str(10**30), "max_new_tokens=1000"),
    ("--n", str(10**30), "n=1000"),
    ("--dtype", "int3", "Unknown dtype 'int3'"),
    ("--template-option", "thinking", "--template-option 'thinking': expected NAME=VALUE"),
]


@pytest.fixture
def here(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"question": f"w{i + 3} w7"}) + "\n" for i in range(40)))
    (tmp_path / "broken.jsonl").write_text('{"question": "x"}\n{half\n')
    (tmp_path / "mine.py").write_text("def check(completion, answer):\n    return True\n")
    (tmp_path / "file").write_text("")
    (tmp_path / "weights.pt").write_text("")
    (tmp_path / "head").symlink_to(tiny / "head")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "out", *MODEL, "--task", "p.jsonl", "--verifier", "mien.py:check"], "mien.py"),
        (["sample", "out", *MODEL, "--task", "p.jsonl", "--verifier", "mine.py:chek"], "has no function 'chek'"),
        (["sample", "out", *MODEL, "--task", "p.jsonl"], "needs a verifier"),
        (["sample", "out", *MODEL, "--task", "q.jsonl", *OWN[2:]], "'q.jsonl' does not exist"),
        (["sample", "out", *MODEL, "--task", "broken.jsonl", *OWN[2:]], "Line 2 of 'broken.jsonl' is not JSON"),
        ([*SAMPLE, "--extract", "mine.py:extract"], "has no function 'extract'"),
        ([*SAMPLE, "--prompts", "400"], "problems: ask for fewer than 400"),
        ([*SAMPLE, "--skip", "400"], "problems: ask for fewer than 402"),
        ([*SAMPLE, "--split", "tset"], "Unknown split 'tset'"),
        ([*SAMPLE, "--signal", "logit"], "Unknown signal 'logit': this version reads hidden_states"),
        ([*SAMPLE[:-2], "--pooled-by", "./my-haed"], "'./my-haed' is neither a folder"),
        ([*SAMPLE[:-2], "--base-model", "name"], "--base-model name: expected"),
        (["sample", "file", *SAMPLE[2:]], "'file' is not a folder"),
        (["sample", "file/out", *SAMPLE[2:]], "is a file: choose another place"),
        (["sample", "/proc/out", *SAMPLE[2:]], "'/proc/out' cannot be written"),
        (["sample", "x" * 5000, *SAMPLE[2:]], "cannot be written"),
        ([*SAMPLE, "--task", "x" * 5000], "Unknown task 'xxx"),
        ([*SAMPLE, "--task", "x" * 5000 + ".jsonl"], "does not exist: expected a file with"),
        ([*EVALUATE, "--numbers", "x" * 5000], "cannot be written"),
        ([*EVALUATE, "--head", "./my-haed"], "'./my-haed' is neither a folder"),
        ([*EVALUATE, "--text-reward-model", "./my-clasifier"], "./my-clasifier"),
        ([*EVALUATE, "--numbers", "file/new/x.json"], "is a file: choose another place"),
        ([*EVALUATE, "--markdown", "head"], "'head' is a folder: name a file in it"),
        ([*EVALUATE, "--plot", "/proc/x.svg"], "cannot be written"),
        ([*GENERATE, "--head", "./my-haed"], "'./my-haed' is neither a folder"),
        ([*INSPECT, "--html", "head"], "'head' is a folder: name a file in it"),
        (["convert", "wieghts.pt", "out", *MODEL], "'wieghts.pt' does not exist"),
        (CONVERT, "is not a plain file of weights"),
        *(
            ([*command, option, value], message)
            for command in (SAMPLE, EVALUATE, GENERATE, INSPECT)
            for option, value, message in NUMBERS
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(map(str, value[:1] + value[-2:]))[:70],
)
def test_it_is_told_before_the_model_is_looked_for(here, run_program, arguments, message):
    before = sorted(os.listdir())
    code, out, err = run_program(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "large" not in err
    assert err.count("\n") == 1
    # An error quotes at most 200 characters of what it got
    assert "x" * 201 not in err
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("arguments", [SAMPLE, EVALUATE, GENERATE, INSPECT])
def test_the_model_is_looked_for_where_all_else_is_right(here, run_program, arguments):
    code, _, err = run_program(*arguments)
    assert (code, "./a/large/model" in err) == (2, True), err
