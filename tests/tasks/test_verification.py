"""A verifier that fails is distinguished from an incorrect answer, wherever its verdict is used."""

from decimal import Decimal

import numpy as np
import pytest
from transformers.utils import logging

from hf_elhsr.evaluation import evaluate_rollouts
from hf_elhsr.rollouts import Recording, RolloutSet, SamplingArguments, sample_rollouts
from hf_elhsr.rollouts.rollout import by_prompt
from hf_elhsr.rollouts.scoring import score_rollouts
from hf_elhsr.tasks import ArithmeticTask, Problem, VerifierFailure, verify
from hf_elhsr.training.data import PromptGroups
from tiny_models import tiny_head

PROBLEM = Problem("id", "question", "answer", "family")


class OddTask(ArithmeticTask):
    """Correct if the completion has an even number of characters; the verifier fails on some."""

    def __init__(self, fails=lambda completion: False):
        self.fails = fails

    def verify(self, problem, completion):
        if self.fails(completion):
            raise RuntimeError("cannot read this")
        return len(completion) % 2 == 0


def test_errors_and_wrong_types_are_failures():
    def label(function, **kwargs):
        task = OddTask()
        task.verify = function
        return verify(task, PROBLEM, "a 12", **kwargs)

    assert label(lambda problem, completion: True) == (True, "12")
    assert label(lambda problem, completion: False) == (False, "12")
    with pytest.raises(VerifierFailure, match="Problem 'id': ZeroDivisionError"):
        label(lambda problem, completion: 1 / 0)
    for invalid in (None, "yes", 0.5, np.array([True, False])):
        with pytest.raises(VerifierFailure, match="expected True or False, got"):
            label(lambda problem, completion, invalid=invalid: invalid)
    assert label(lambda problem, completion: np.bool_(True)) == (True, "12")


@pytest.mark.parametrize("answer", [Decimal(12), 12, 1.5, ["12"], np.int64(12), b"12"])
def test_an_answer_that_is_not_text_is_a_failure(answer):
    """Rollouts with it could not be written after they were sampled."""
    task = OddTask()
    task.extract = lambda completion: answer
    with pytest.raises(VerifierFailure, match=f"'id': expected .* text or None, got {type(answer).__name__} "):
        verify(task, PROBLEM, "a 12")


@pytest.fixture(scope="module")
def sampled(smollm2, tmp_path_factory):
    model, tokenizer = smollm2
    arguments = SamplingArguments(n=4, max_new_tokens=5, prompts_per_batch=4)

    def sample(task, **kwargs):
        folder = tmp_path_factory.mktemp("verification")
        recording = Recording(**kwargs)
        return sample_rollouts(model, tokenizer, task, folder, prompts=8, arguments=arguments, recording=recording)

    return sample


def test_prompts_with_a_failure_are_counted_and_left_out(sampled, caplog):
    whole = sampled(OddTask())
    texts = [rollout.text for rollout in whole.rollouts()]
    unreadable = texts[9]
    partly = sampled(OddTask(lambda completion: completion == unreadable))
    failed = [rollout for rollout in partly.rollouts() if rollout.label is None]
    assert [rollout.text for rollout in failed] == [text for text in texts if text == unreadable]
    assert "RuntimeError: cannot read this" in failed[0].verifier_failure
    with pytest.raises(ValueError, match="has no label"):
        _ = failed[0].correct
    left_out = {rollout.problem for rollout in failed}
    logging.enable_propagation()
    partly.check_complete()
    logging.disable_propagation()
    assert f"{len(left_out)} of 8 prompts are left out" in caplog.text
    assert "RuntimeError: cannot read this" in caplog.text
    kept = PromptGroups(partly).prompts
    assert set(kept) == {rollout.problem for rollout in whole.rollouts()} - left_out
    # The features that remain are those of the same rollouts
    size = len(kept)
    [batch] = PromptGroups(partly).batches(kept, size)
    [expected] = PromptGroups(whole).batches(kept, size)
    assert batch.labels.equal(expected.labels)
    assert batch.features.equal(expected.features)


def test_evaluations_say_how_many_prompts_were_left_out(sampled, smollm2):
    head = tiny_head(smollm2[0])
    whole = sampled(OddTask(), head=head)
    unreadable = whole.rollouts()[9].text
    partly = sampled(OddTask(lambda completion: completion == unreadable), head=head)
    assert isinstance(partly, RolloutSet)
    left_out = {rollout.problem for rollout in partly.rollouts() if rollout.label is None}
    evaluation = evaluate_rollouts(partly)
    assert evaluation.unverified == len(left_out) > 0
    assert evaluation.prompts == 8 - len(left_out)
    assert evaluate_rollouts(whole).unverified == 0
    assert len(score_rollouts(partly, head).lengths) == 8 - len(left_out)
    # It fails on all but the first, so that sampling is not stopped
    first = whole.rollouts()[0].text
    with pytest.raises(ValueError, match="failed on all of them"):
        evaluate_rollouts(sampled(OddTask(lambda completion: completion != first), head=head))


def test_rollouts_of_a_prompt_must_be_adjacent(sampled):
    first, *others = sampled(OddTask()).rollouts()
    assert len(list(by_prompt([first, *others]))) == 8
    with pytest.raises(ValueError, match="to be adjacent"):
        list(by_prompt([*others, first]))
