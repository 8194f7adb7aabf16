"""Best of k compared with an enumeration of all subsets."""

from itertools import combinations

import numpy as np
import pytest

from hf_elhsr.evaluation.best_of_k import best_of_k, majority_of_k, oracle_of_k


def enumerated(rewards, labels, k):
    """Every subset of k, its winner by reward; ties shared."""
    outcomes = []
    for subset in combinations(range(len(rewards)), k):
        highest = max(rewards[i] for i in subset)
        outcomes.append(np.mean([labels[i] for i in subset if rewards[i] == highest]))
    return np.mean(outcomes)


@pytest.mark.parametrize("levels", [1000, 3, 1], ids=["no ties", "many ties", "all tied"])
def test_best_of_k_is_the_mean_over_all_subsets(levels):
    rng = np.random.default_rng(0)
    rewards, labels = rng.integers(0, levels, (20, 6)).astype(float), rng.random((20, 6)) < 0.4
    expected = [[enumerated(r, y, k) for k in range(1, 7)] for r, y in zip(rewards, labels, strict=True)]
    np.testing.assert_allclose(best_of_k(rewards, labels), expected, atol=1e-12)


def test_the_oracle_is_the_mean_over_all_subsets():
    labels = np.random.default_rng(0).random((20, 6)) < 0.3
    expected = [[enumerated(y, y, k) for k in range(1, 7)] for y in labels]
    np.testing.assert_allclose(oracle_of_k(labels), expected, atol=1e-12)


def test_many_rollouts_do_not_overflow():
    labels = np.arange(256)[None] % 7 == 0
    curve = best_of_k(np.arange(256.0)[None], labels)
    assert curve[0, 0] == pytest.approx(labels.mean())
    assert curve[0, -1] == labels[0, -1]


@pytest.mark.parametrize(
    ("rewards", "labels", "words"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), "the same shape"),
        (np.zeros(3), np.zeros(3), "the same shape"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "the same shape"),
        (np.array([[0.0, np.nan]]), np.zeros((1, 2)), "NaN"),
    ],
)
def test_invalid_input_is_refused(rewards, labels, words):
    with pytest.raises(ValueError, match=words):
        best_of_k(rewards, labels)


def majority_enumerated(answers, labels, k):
    """For every subset of k, the probability that the rollout selected by the vote is correct.

    Only rollouts with a most frequent answer can be selected: one of these answers is drawn, then one of its rollouts.
    Without any votes, all rollouts are equally likely.
    """
    outcomes = []
    for subset in combinations(range(len(answers)), k):
        supporters = [sum(answers[j] == answers[i] is not None for j in subset) for i in subset]
        leaders = [i for i, count in zip(subset, supporters, strict=True) if count == max(supporters)]
        # All leading answers have equally many rollouts, so drawing an answer first or a rollout directly is the same
        outcomes.append(sum(bool(labels[i]) for i in leaders) / len(leaders))
    return sum(outcomes) / len(outcomes)


@pytest.mark.parametrize("seed", range(3))
def test_majority_vote_is_the_mean_over_all_subsets(seed):
    rng = np.random.default_rng(seed)
    possible = np.array(["a", "b", "c", "d", None], dtype=object)
    answers = rng.choice(possible, size=(25, 7), p=[0.3, 0.25, 0.15, 0.1, 0.2]).tolist()
    # Two spellings are correct, and so are some rollouts without an answer
    labels = np.array(
        [[answer in ("a", "c") or (answer is None and i == 2) for i, answer in enumerate(row)] for row in answers]
    )
    # The second labels differ within an answer
    for given in (labels, rng.random(labels.shape) < 0.5):
        expected = [[majority_enumerated(a, y, k) for k in range(1, 8)] for a, y in zip(answers, given, strict=True)]
        np.testing.assert_allclose(majority_of_k(answers, given), expected, atol=1e-12)


def test_a_vote_is_as_often_correct_as_the_rollouts_with_its_answer():
    """One of five rollouts that answer "5" is labelled correct, so a vote for "5" is correct in one case of five."""
    curve = majority_of_k([["5"] * 5], np.array([[True, False, False, False, False]]))
    np.testing.assert_allclose(curve, [[0.2] * 5], atol=1e-12)


def test_answers_must_match_the_labels():
    with pytest.raises(ValueError, match="Expected an answer for each of the labels"):
        majority_of_k([["a", "b"], ["a"]], np.ones((2, 2)))
