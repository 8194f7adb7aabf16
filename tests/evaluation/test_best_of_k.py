"""Best of k against enumeration of all subsets."""

from itertools import combinations

import numpy as np
import pytest

from hf_elhsr.evaluation.best_of_k import best_of_k, oracle_of_k


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
        (np.zeros((2, 3)), np.zeros((2, 4)), "one shape"),
        (np.zeros(3), np.zeros(3), "one shape"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "one shape"),
        (np.array([[0.0, np.nan]]), np.zeros((1, 2)), "NaN"),
    ],
)
def test_bad_input(rewards, labels, words):
    with pytest.raises(ValueError, match=words):
        best_of_k(rewards, labels)
