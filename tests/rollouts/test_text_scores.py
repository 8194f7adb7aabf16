"""Scores of stored rollouts by their texts: in order, kept shard by shard, never half a prompt."""

import dataclasses

import pytest

from hf_elhsr import ElhsrConfig
from hf_elhsr.rollouts import Rollout, RolloutSet
from hf_elhsr.rollouts.text_scores import score_rollout_texts

PROMPTS = {"a": "Question a: ", "b": "Question b: ", "c": "Question c: "}


@pytest.fixture
def rollouts(tmp_path):
    settings = {"task": "made", "split": "test", "prompts": 3, "sampling": {}}
    made = RolloutSet.create(tmp_path / "set", settings, ElhsrConfig(hidden_size=2, layers=[0]))
    for shard, problems in enumerate(("ab", "c")):
        texts = [(problem, f"{problem}{'x' * number}") for problem in problems for number in range(3)]
        made.write_shard(shard, [Rollout(p, "t", [1], text, None, False, -1.0, 0) for p, text in texts], None)
    return made


class Length:
    """Scores how long prompt and completion are, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, prompts, completions):
        self.asked += completions
        return [float(len(p + c)) for p, c in zip(prompts, completions, strict=True)]


def test_scores_are_in_the_order_of_the_set(rollouts):
    assert score_rollout_texts(rollouts, PROMPTS, Length()) == {problem: [13.0, 14.0, 15.0] for problem in "abc"}


def test_what_was_scored_under_a_name_is_not_scored_again(rollouts):
    def fails_at_c(prompts, completions):
        if completions[0] == "c":
            raise KeyboardInterrupt
        return Length()(prompts, completions)

    with pytest.raises(KeyboardInterrupt):
        score_rollout_texts(rollouts, PROMPTS, fails_at_c, "length")
    again = Length()
    assert score_rollout_texts(rollouts, PROMPTS, again, "length") == score_rollout_texts(rollouts, PROMPTS, Length())
    assert again.asked == ["c", "cx", "cxx"]
    other = Length()
    score_rollout_texts(rollouts, PROMPTS, other, "another")
    assert len(other.asked) == 9
    # A shard that was sampled again is scored again
    first, _ = next(iter(rollouts.shards()))
    rollouts.write_shard(0, [dataclasses.replace(rollout, text=rollout.text + "y") for rollout in first], None)
    anew = Length()
    assert score_rollout_texts(rollouts, PROMPTS, anew, "length")["a"] == [14.0, 15.0, 16.0]
    assert anew.asked == ["ay", "axy", "axxy", "by", "bxy", "bxxy"]
    # The rollouts themselves are read as before
    assert len(rollouts.rollouts()) == 9
    rollouts.check_complete()


def test_what_is_refused(rollouts):
    with pytest.raises(ValueError, match="prompt of problem 'c' is missing"):
        score_rollout_texts(rollouts, {name: text for name, text in PROMPTS.items() if name != "c"}, Length())
    with pytest.raises(ValueError, match="given 3 completions and returned scores of shape"):
        score_rollout_texts(rollouts, PROMPTS, lambda prompts, completions: [1.0])
    with pytest.raises(ValueError, match="scored completion 1 as nan"):
        score_rollout_texts(rollouts, PROMPTS, lambda prompts, completions: [1.0, float("nan"), 2.0])
