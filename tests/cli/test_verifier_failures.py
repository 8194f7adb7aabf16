"""What a verifier fails with often quotes the language model: it is shown, and has no effect on a terminal."""

import dataclasses
import io
import json
import logging

import pytest
import torch
from rich.console import Console

from hf_elhsr import ElhsrConfig
from hf_elhsr.cli.result import show_rollouts
from hf_elhsr.rollouts import Rollout, RolloutSet
from hf_elhsr.rollouts.labelling import refuse_unverified
from hf_elhsr.tasks import VerifierFailure, find_task, verify

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"
SHOWN = "⟨U+001B⟩]0;owned⟨U+0007⟩⟨U+001B⟩[2J⟨U+202E⟩⟨U+009B⟩31m"
FAILED = Rollout("p", "t", [1], "", None, None, -1.0, 0, verifier_failure=f"Problem 'p': no number in {HOSTILE}")


@pytest.fixture
def rollouts(tmp_path):
    """A set with one failure in two rollouts, as somebody else may have written it."""
    made = RolloutSet.create(
        tmp_path / "set", {"task": "t", "split": "train", "prompts": 2}, ElhsrConfig(hidden_size=2, layers=[0])
    )
    right = dataclasses.replace(FAILED, problem="q", label=True, first_row=1, verifier_failure=None)
    made.write_shard(0, [FAILED, right], torch.zeros(2, 2))
    return made


def test_of_a_set_on_a_terminal(rollouts, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("hf_elhsr.cli.result.console", Console(file=out, force_terminal=True, width=200))
    show_rollouts(False, rollouts, {})
    assert SHOWN in out.getvalue()
    assert HOSTILE not in out.getvalue()
    assert "\x1b]" not in out.getvalue()


def test_in_warnings_and_errors(rollouts):
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("hf_elhsr.rollouts.rollout_set")
    logger.addHandler(handler)
    try:
        rollouts.check_complete()
    finally:
        logger.removeHandler(handler)
    with pytest.raises(ValueError, match="failed on each") as refused:
        refuse_unverified([FAILED])
    with pytest.raises(ValueError, match="has no label") as unlabelled:
        _ = FAILED.correct
    said += [str(refused.value), str(unlabelled.value)]
    assert len(said) == 3
    assert all(SHOWN in text and "\x1b" not in text for text in said)


def test_of_a_new_verdict_at_most_200_characters_are_quoted(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"question": "three"}\n')
    (tmp_path / "mine.py").write_text(
        f"def check(completion, answer):\n    raise ValueError({HOSTILE!r} + completion * 10**6)\n"
    )
    task = find_task(str(tmp_path / "rows.jsonl"), f"{tmp_path / 'mine.py'}:check")
    with pytest.raises(VerifierFailure) as failure:
        verify(task, task.problems("train", 1)[0], "x")
    assert f"ValueError: {SHOWN}xxx" in str(failure.value)
    assert len(str(failure.value)) < 400


def test_what_a_verifier_prints_is_no_part_of_the_output(tiny, tiny_options, tmp_path, run_program):
    (tmp_path / "mine.py").write_text(
        "import sys\n\nprint('loading')\n\n"
        "def check(completion, answer):\n    print('checked')\n    print('!', file=sys.stderr)\n    return True\n"
    )
    own = ["--task", tiny / "mine.jsonl", "--verifier", f"{tmp_path / 'mine.py'}:check", "--base-model", "org/tiny"]
    code, out, err = run_program("sample", tmp_path / "out", *tiny_options, *own, "--prompts", 2, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["correct"] == 8
