"""Strategies: ways to answer a prompt from its n rollouts, each as the probability that the answer is correct.

Ties are broken at random and counted by their expectation, so that no strategy gains from the order of rollouts.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..rollouts import Rollout


def single_sample(rollouts: list[Rollout]) -> float:
    """One rollout, drawn at random."""
    return sum(rollout.correct for rollout in rollouts) / len(rollouts)


def majority_vote(rollouts: list[Rollout]) -> float:
    """The final answer that most rollouts give; rollouts without an answer do not vote."""
    votes = Counter(rollout.answer for rollout in rollouts if rollout.answer is not None)
    if not votes:
        return single_sample(rollouts)
    most = max(votes.values())
    return _answered([answer for answer, count in votes.items() if count == most], rollouts)


def weighted_vote(rollouts: list[Rollout]) -> float:
    """The final answer whose rollouts have the highest sum of sigmoid(R); rollouts without an answer do not vote."""
    weights: dict[str, float] = {}
    for rollout, reward in zip(rollouts, _rewards(rollouts), strict=True):
        if rollout.answer is not None:
            weights[rollout.answer] = weights.get(rollout.answer, 0.0) + math.exp(-np.logaddexp(0.0, -reward))
    if not weights:
        return single_sample(rollouts)
    most = max(weights.values())
    return _answered([answer for answer, weight in weights.items() if weight == most], rollouts)


def mean_log_probability(rollouts: list[Rollout]) -> float:
    """The rollout whose tokens the language model finds most likely on average."""
    return _highest([rollout.mean_log_probability for rollout in rollouts], rollouts)


def summed_log_probability(rollouts: list[Rollout]) -> float:
    """The rollout that the language model finds most likely as a whole."""
    return _highest([rollout.mean_log_probability * len(rollout.token_ids) for rollout in rollouts], rollouts)


def self_certainty(rollouts: list[Rollout]) -> float:
    """The rollout whose distributions are farthest from uniform on average."""
    certainties = [rollout.self_certainty for rollout in rollouts if rollout.self_certainty is not None]
    if len(certainties) != len(rollouts):
        raise ValueError("These rollouts were sampled before self-certainty was recorded: sample them again.")
    return _highest(certainties, rollouts)


def shortest(rollouts: list[Rollout]) -> float:
    """The rollout with the fewest tokens."""
    return _highest([-len(rollout.token_ids) for rollout in rollouts], rollouts)


def reward_head(rollouts: list[Rollout]) -> float:
    """The rollout with the highest reward by the head."""
    return _highest(_rewards(rollouts), rollouts)


def oracle(rollouts: list[Rollout]) -> float:
    """A correct rollout if there is one: the upper bound of any selection."""
    return float(any(rollout.correct for rollout in rollouts))


def _answered(winners: list[str], rollouts: list[Rollout]) -> float:
    """One of these answers, drawn at random, and one of its rollouts, which verifiers may label differently."""
    given = [[rollout for rollout in rollouts if rollout.answer == answer] for answer in winners]
    return sum(single_sample(own) for own in given) / len(given)


def _rewards(rollouts: list[Rollout]) -> list[float]:
    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    if len(rewards) != len(rollouts):
        raise ValueError("These rollouts were sampled without a head: sample them again with one.")
    return rewards


def _highest(scores: Sequence[float], rollouts: list[Rollout]) -> float:
    best = max(scores)
    return single_sample([rollout for rollout, score in zip(rollouts, scores, strict=True) if score == best])
