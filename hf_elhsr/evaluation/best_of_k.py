"""Best of k for every k up to n: exact expectations over all subsets of k of a prompt's n rollouts.

One evaluation with n rollouts then says how accuracy grows with k, without a new sample for each k and without the
noise of drawing subsets. Ties between rewards are broken at random, and counted by their expectation.
"""

from collections import Counter
from collections.abc import Sequence
from math import comb

import numpy as np


def best_of_k(rewards: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How likely the highest reward among k rollouts, drawn without replacement, is that of a right one.

    With the rollouts in order of falling reward, the one at place i (from 0) wins C(n - 1 - i, k - 1) of the C(n, k)
    subsets: those that have it, and k - 1 of the n - 1 - i below it.

    Args:
        rewards: (prompts, n) finite.
        labels: (prompts, n), 1 where the final answer is right.

    Returns:
        (prompts, n) float64; column k - 1 is the best of k.

    Raises:
        ValueError: Shapes that differ, no rollouts, or rewards that are not finite.
    """
    rewards, labels = _checked(rewards, labels)
    order = np.argsort(-rewards, axis=1, kind="stable")
    in_order = np.take_along_axis(labels, order, axis=1)
    return _share_ties(np.take_along_axis(rewards, order, axis=1), in_order) @ _wins(rewards.shape[1])


def oracle_of_k(labels: np.ndarray) -> np.ndarray:
    """How likely k rollouts, drawn without replacement, have a right one among them: 1 - C(wrong, k) / C(n, k).

    Args:
        labels: (prompts, n), 1 where the final answer is right.

    Returns:
        (prompts, n) float64; column k - 1 is for k.
    """
    n = labels.shape[1]
    wrong = n - labels.astype(bool).sum(axis=1)
    table = np.array([[1 - comb(count, k) / comb(n, k) for k in range(1, n + 1)] for count in range(n + 1)])
    return table[wrong]


def majority_of_k(answers: Sequence[Sequence[str | None]], labels: np.ndarray) -> np.ndarray:
    """How likely the answer most often given among k rollouts, drawn without replacement, is right.

    Rollouts without an answer do not vote; where none of the k votes, one of them is drawn. A tie goes to each of its
    answers with the same probability. Where a verifier tells rollouts with one answer apart, one of them is drawn.

    Args:
        answers: n for every prompt, None where a rollout gives none.
        labels: (prompts, n), 1 where the final answer is right.

    Returns:
        (prompts, n) float64; column k - 1 is for k.

    Raises:
        ValueError: Answers and labels are not of one shape.
    """
    labels = np.asarray(labels).astype(bool)
    if labels.ndim != 2 or [len(row) for row in answers] != [labels.shape[1]] * len(labels):
        raise ValueError(f"Expected an answer for each of the labels, which are {labels.shape}.")
    return np.stack([_majority(list(row), right) for row, right in zip(answers, labels, strict=True)])


def _majority(answers: list[str | None], labels: np.ndarray) -> np.ndarray:
    n = len(answers)
    votes = Counter(answer for answer in answers if answer is not None)
    silent = n - votes.total()
    right = Counter(answer for answer, label in zip(answers, labels, strict=True) if label and answer is not None)
    chance = np.zeros(n + 1)
    for answer, count in right.items():
        others = [votes[other] for other in votes if other != answer]
        # Subsets draw the rollouts of an answer alike, so on average they have the share of right ones that all have
        share = count / votes[answer]
        for most in range(1, votes[answer] + 1):
            chance[most:] += share * comb(votes[answer], most) * _won(others, silent, most, n)[: n + 1 - most]
    # Subsets in which nobody votes
    silent_right = sum(bool(label) for answer, label in zip(answers, labels, strict=True) if answer is None)
    for k in range(1, silent + 1):
        chance[k] += comb(silent, k) * silent_right / silent
    subsets: np.ndarray = np.array([comb(n, k) for k in range(1, n + 1)], dtype=np.float64)
    return chance[1:] / subsets


def _won(others: list[int], silent: int, most: int, n: int) -> np.ndarray:
    """(n + 1,): of the ways to draw so many of the other rollouts, those that leave `most` votes the most, ties shared.

    A generating function: x counts the rollouts drawn, y the answers that tie.
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
            f"Expected rewards and labels of one shape (prompts, n), got {rewards.shape} and {labels.shape}."
        )
    if not np.isfinite(rewards).all():
        raise ValueError("Rewards contain NaN or infinity, so no rollout is the best: score them again.")
    return rewards, labels


def _wins(n: int) -> np.ndarray:
    """(n, n): the share of subsets of k (column k - 1) that the rollout at place i (row) wins."""
    return np.array([[comb(n - 1 - i, k - 1) / comb(n, k) for k in range(1, n + 1)] for i in range(n)])


def _share_ties(rewards: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels in order of falling reward, those of equal rewards replaced by their mean."""
    shared = labels.copy()
    for prompt in np.flatnonzero((np.diff(rewards, axis=1) == 0).any(axis=1)):
        _, group = np.unique(-rewards[prompt], return_inverse=True)
        shared[prompt] = (np.bincount(group, labels[prompt]) / np.bincount(group))[group]
    return shared
