"""Fixing a verifier costs no sampling: the run is stopped early, or the stored texts are labelled again."""

import dataclasses
import json

import pytest
import torch
from tiny_task import TinyTask
from tiny_tokenizer import tiny_tokenizer

from hf_elhsr import ElhsrConfig, enable_best_of_n
from hf_elhsr.rollouts import Recording, RolloutSet, SamplingArguments, relabel_rollouts, rollout_set, sample_rollouts
from tiny_models import tiny_model

ARGUMENTS = SamplingArguments(n=3, max_new_tokens=5, prompts_per_batch=2)


class OwnTask(TinyTask):
    """Correct where the last word is of a number that `divisor` divides; fails where `broken` says so."""

    def __init__(self, divisor=2, broken=lambda problem: False, problems=None):
        self.divisor, self.broken, self.changed = divisor, broken, problems
        self.labelled_by = {"verifier": "mine.py:check", "verifier_sha256": f"{divisor} {broken('p0')}"}

    def problems(self, split, count, seed=0):
        problems = super().problems(split, count, seed)
        return problems if self.changed is None else self.changed(problems)

    def extract(self, completion):
        return completion.split()[-1] if completion else None

    def verify(self, problem, completion):
        if self.broken(problem.id):
            raise RuntimeError(f"cannot judge {problem.id}")
        answer = self.extract(completion)
        return answer is not None and int(answer.removeprefix("w")) % self.divisor == 0


@pytest.fixture(scope="module")
def sample():
    model = enable_best_of_n(tiny_model())
    # What the cache of a model can do is tried with its first sampling
    model.sample_candidates(torch.tensor([[5, 6]]), n=2, max_new_tokens=2)
    runs = []
    model.register_forward_pre_hook(lambda *arguments: runs.append(1))

    def sample(folder, task, count=6):
        recording, before = Recording(config=ElhsrConfig.for_model(model)), len(runs)
        try:
            return sample_rollouts(
                model, tiny_tokenizer(), task, folder, prompts=count, arguments=ARGUMENTS, recording=recording
            )
        finally:
            sample.runs = len(runs) - before

    return sample


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def all_broken(problem):
    return True


def test_a_verifier_that_fails_on_everything_is_reported_before_all_is_sampled(sample, tmp_path):
    with pytest.raises(ValueError, match=r"each of the first 6 rollouts.* 'p0': RuntimeError: cannot judge p0"):
        sample(tmp_path / "rollouts", OwnTask(broken=all_broken))
    # Of one batch: every token is fed back, the last one, too
    assert sample.runs == ARGUMENTS.max_new_tokens + 1
    assert list(contents(tmp_path / "rollouts")) == ["settings.json"]
    # With the verifier fixed, the same folder is used as if nothing had happened
    fixed = sample(tmp_path / "rollouts", OwnTask())
    assert fixed.settings["labelled_by"] == OwnTask().labelled_by
    sample(tmp_path / "new", OwnTask())
    assert contents(tmp_path / "new") == contents(tmp_path / "rollouts")


def test_one_that_fails_on_some_of_the_first_batch_or_all_of_a_later_one_continues(sample, tmp_path):
    some = sample(tmp_path / "some", OwnTask(broken=lambda problem: problem != "p1"))
    assert [rollout.problem for rollout in some.rollouts() if rollout.label is not None] == ["p1"] * 3
    sample(tmp_path / "more", OwnTask(), count=4)
    # A resumed run has its own first batch
    (tmp_path / "more" / "shard-00001.jsonl").unlink()
    task = OwnTask(broken=lambda problem: problem in ("p2", "p3"))
    with pytest.raises(ValueError, match="each of the first 6 rollouts"):
        sample(tmp_path / "more", task, count=4)
    assert not (tmp_path / "more" / "shard-00001.jsonl").exists()


def test_relabelled_rollouts_are_those_that_the_fixed_verifier_would_have_labelled(sample, tmp_path):
    first = sample(tmp_path / "first", OwnTask(3, broken=lambda problem: problem == "p2"))
    labels = [rollout.label for rollout in first.rollouts()]
    assert labels.count(None) == 3
    fixed = OwnTask(2)
    with pytest.raises(
        ValueError, match=r"\(labelled_by differ\).*first run `hf-elhsr relabel` on the existing rollouts"
    ):
        sample(tmp_path / "first", fixed)
    arrays = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("first/*.safetensors")}
    relabelled = relabel_rollouts(tmp_path / "first", fixed)
    expected = sample(tmp_path / "expected", fixed)
    assert relabelled.rollouts() == expected.rollouts() == RolloutSet(tmp_path / "first").rollouts()
    assert [rollout.label for rollout in expected.rollouts()] != labels
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in arrays} == arrays
    assert relabelled.settings == RolloutSet(tmp_path / "first").settings == expected.settings
    relabelled.check_complete()
    # It counts as sampled with it, and doing it again changes nothing
    sample(tmp_path / "first", fixed)
    assert sample.runs == 0
    before = contents(tmp_path / "first")
    relabel_rollouts(tmp_path / "first", fixed)
    assert contents(tmp_path / "first") == before


def test_an_unfinished_set_is_relabelled_and_resumed(sample, tmp_path):
    sample(tmp_path, OwnTask(3))
    for file in tmp_path.glob("shard-00001.*"):
        file.unlink()
    relabel_rollouts(tmp_path, OwnTask(2))
    whole = sample(tmp_path, OwnTask(2))
    assert whole.rollouts() == sample(tmp_path / "expected", OwnTask(2)).rollouts()


@pytest.mark.parametrize("writes", range(5))
def test_a_relabelling_that_was_stopped_is_noticed_and_done_again(sample, tmp_path, monkeypatch, writes):
    """Three shards and twice the settings are written."""
    old, new = OwnTask(3), OwnTask(2)
    sample(tmp_path, old)
    left = iter(range(writes))
    write = rollout_set.write_text

    def write_until(file, text):
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(file, text)

    with monkeypatch.context() as patched:
        patched.setattr(rollout_set, "write_text", write_until)
        with pytest.raises(KeyboardInterrupt):
            relabel_rollouts(tmp_path, new)
    if writes:
        for use in (
            lambda: sample(tmp_path, old),
            lambda: sample(tmp_path, new),
            RolloutSet(tmp_path).check_complete,
        ):
            with pytest.raises(ValueError, match="run the `hf-elhsr relabel` command again"):
                use()
    else:
        sample(tmp_path, old)
    relabelled = relabel_rollouts(tmp_path, new)
    relabelled.check_complete()
    assert relabelled.rollouts() == sample(tmp_path / "expected", new).rollouts()
    assert "relabelling" not in json.loads((tmp_path / "settings.json").read_text())


def test_what_cannot_be_relabelled(sample, tmp_path):
    sample(tmp_path, OwnTask())
    before = contents(tmp_path)

    class Other(OwnTask):
        name = "other"

    def renamed(problems):
        return [dataclasses.replace(problem, id=f"{problem.id}x") for problem in problems[:2]] + problems[2:]

    for task, words in (
        (Other(), "of the task 'tiny', not of 'other'"),
        (OwnTask(problems=renamed), "2 of the 6 prompts"),
        (OwnTask(broken=all_broken), "each of the first 6 rollouts"),
    ):
        with pytest.raises(ValueError, match=words):
            relabel_rollouts(tmp_path, task)
        assert contents(tmp_path) == before
    for file in tmp_path.glob("shard-*"):
        file.unlink()
    with pytest.raises(ValueError, match="nothing to label"):
        relabel_rollouts(tmp_path, OwnTask())
