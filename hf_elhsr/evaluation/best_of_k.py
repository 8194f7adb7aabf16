"""Best of k for every k up to n: exact expectations over all subsets of k of a prompt's n rollouts.

One evaluation with n rollouts shows how accuracy grows with k, without a new sample for each k and without the noise of
drawing subsets. Ties between rewards are broken at random, and counted by their expectation.
"""

from collections import Counter
from collections.abc import Sequence
from math import comb

import numpy as np


def best_of_k(rewards: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The probability that, among k rollouts drawn without replacement, the one with the highest reward is correct.

    With the rollouts in order of falling reward, the one at place i (from 0) wins C(n - 1 - i, k - 1) of the C(n, k)
    subsets: those that contain it and k - 1 of the n - 1 - i below it.

    Args:
        rewards: (prompts, n), finite.
        labels: (prompts, n), 1 if the final answer is correct.

    Returns:
        (prompts, n) float64; column k - 1 is the best of k.

    Raises:
        ValueError: Shapes differ, there are no rollouts, or rewards are not finite.
    """
    rewards, labels = _checked(rewards, labels)
    order = np.argsort(-rewards, axis=1, kind="stable")
    in_order = np.take_along_axis(labels, order, axis=1)
    return _share_ties(np.take_along_axis(rewards, order, axis=1), in_order) @ _wins(rewards.shape[1])


def oracle_of_k(labels: np.ndarray) -> np.ndarray:
    """The probability that k rollouts, drawn without replacement, include a correct one.

    It is 1 - C(incorrect, k) / C(n, k).

    Args:
        labels: (prompts, n), 1 if the final answer is correct.

    Returns:
        (prompts, n) float64; column k - 1 is for k.
    """
    n = labels.shape[1]
    incorrect = n - labels.astype(bool).sum(axis=1)
    table = np.array([[1 - comb(count, k) / comb(n, k) for k in range(1, n + 1)] for count in range(n + 1)])
    return table[incorrect]


def majority_of_k(answers: Sequence[Sequence[str | None]], labels: np.ndarray) -> np.ndarray:
    """The probability that the most frequent answer among k rollouts, drawn without replacement, is correct.

    Rollouts without an answer do not vote; if none of the k votes, one of them is drawn. Tied answers win with the same
    probability. If a verifier labels rollouts with the same answer differently, one of them is drawn.

    Args:
        answers: n for every prompt; None for rollouts without an answer.
        labels: (prompts, n), 1 if the final answer is correct.

    Returns:
        (prompts, n) float64; column k - 1 is for k.

    Raises:
        ValueError: Answers and labels differ in shape.
    """
    labels = np.asarray(labels).astype(bool)
    if labels.ndim != 2 or [len(row) for row in answers] != [labels.shape[1]] * len(labels):
        raise ValueError(f"Expected an answer for each of the labels, whose shape is {labels.shape}.")
    return np.stack([_majority(list(row), own) for row, own in zip(answers, labels, strict=True)])


def _majority(answers: list[str | None], labels: np.ndarray) -> np.ndarray:
    n = len(answers)
    votes = Counter(answer for answer in answers if answer is not None)
    silent = n - votes.total()
    correct = Counter(answer for answer, label in zip(answers, labels, strict=True) if label and answer is not None)
    chance = np.zeros(n + 1)
    for answer, count in correct.items():
        others = [votes[other] for other in votes if other != answer]
        # A subset's rollouts with this answer have, on average, the same share of correct ones as all of them
        share = count / votes[answer]
        for most in range(1, votes[answer] + 1):
            chance[most:] += share * comb(votes[answer], most) * _won(others, silent, most, n)[: n + 1 - most]
    # Subsets without any vote
    silent_correct = sum(bool(label) for answer, label in zip(answers, labels, strict=True) if answer is None)
    for k in range(1, silent + 1):
        chance[k] += comb(silent, k) * silent_correct / silent
    subsets: np.ndarray = np.array([comb(n, k) for k in range(1, n + 1)], dtype=np.float64)
    return chance[1:] / subsets


def _won(others: list[int], silent: int, most: int, n: int) -> np.ndarray:
    """(n + 1,): by number of other rollouts drawn, the ways in which `most` votes win, with ties counted as shares.

    It is a generating function: x counts the rollouts drawn, y the answers that tie.
    """
    ways = np.zeros((n + 1, len(others) + 1))
    ways[: silent + 1, 0] = [comb(silent, drawn) for drawn in range(silent + 1)]
    for count in others:
        more = np.zeros_like(ways)
        for drawn in range(min(most - 1, count) + 1):
            more[drawn:] += comb(count, drawn) * ways[: n + 1 - drawn]
        if count >= most:
            more[most:, 1:] += comb(count, most) * ways[: n + 1 - most, :-1]
        ways = more
    return ways @ (1 / np.arange(1, ways.shape[1] + 1))


def _checked(rewards: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rewards, labels = np.asarray(rewards, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if rewards.ndim != 2 or rewards.shape != labels.shape or not rewards.size:
        raise ValueError(
            f"Expected rewards and labels of the same shape (prompts, n), got {rewards.shape} and {labels.shape}."
        )
    if not np.isfinite(rewards).all():
        raise ValueError("Rewards contain NaN or infinity, so no rollout is the best: score them again.")
    return rewards, labels


def _wins(n: int) -> np.ndarray:
    """(n, n): the share of subsets of k (column k - 1) that the rollout at place i (row) wins."""
    return np.array([[comb(n - 1 - i, k - 1) / comb(n, k) for k in range(1, n + 1)] for i in range(n)])


def _share_ties(rewards: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Replace labels of equal rewards by their mean; both in order of falling reward."""
    shared = labels.copy()
    for prompt in np.flatnonzero((np.diff(rewards, axis=1) == 0).any(axis=1)):
        _, group = np.unique(-rewards[prompt], return_inverse=True)
        shared[prompt] = (np.bincount(group, labels[prompt]) / np.bincount(group))[group]
    return shared
