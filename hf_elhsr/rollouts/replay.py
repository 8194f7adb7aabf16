"""Replays: what pruning or adaptive n would have sampled and chosen, told from rollouts that were sampled whole.

A replay is exact, not a model: a candidate's tokens do not depend on what becomes of the others, so dropping it is to
cut its rollout short. The rules are the ones that the decoding loop calls.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..rewards.adaptive import AdaptiveSampling
from ..rewards.pruning import PruningSchedule, hopeless
from .scored_rollouts import ScoredRollouts

#: From rollouts and a number of tokens to (prompts, n, k) features of the prefixes.
Judge = Callable[[ScoredRollouts, int], torch.Tensor]


@dataclass(frozen=True)
class Replay:
    """What came of every prompt.

    Args:
        tokens: (prompts,) float64, sampled tokens of all candidates together.
        right: (prompts,) float64, whether the winner is right (its mean, where a replay is an average).
        winner_rewards: (prompts,) float64, R of the winner; (prompts, orders) where a replay is an average.
    """

    tokens: np.ndarray
    right: np.ndarray
    winner_rewards: np.ndarray


def replay_exact(scored: ScoredRollouts) -> Replay:
    """Exact best-of-n: every candidate to its end, and the highest R wins."""
    return _outcome(scored.lengths.sum(axis=1), scored.labels, scored.rewards, np.ones_like(scored.labels))


def replay_pruning(
    scored: ScoredRollouts, schedule: PruningSchedule, judge: Judge = ScoredRollouts.prefix_features
) -> Replay:
    """All candidates of a prompt in step, hopeless ones dropped at the checks; the highest R of the rest wins.

    Args:
        judge: The features that the schedule judges by.
    """
    ends = torch.from_numpy(scored.lengths)
    pruned = torch.zeros(ends.shape, dtype=torch.bool)
    tokens = ends.clone()
    for steps in range(schedule.interval, int(ends.max()), schedule.interval):
        running = (ends > steps) & ~pruned
        dropped = hopeless(schedule, judge(scored, steps), running, pruned, steps)
        pruned |= dropped
        tokens[dropped] = steps
    return _outcome(tokens.sum(dim=1).numpy(), scored.labels, scored.rewards, ~pruned.numpy())


def replay_adaptive(scored: ScoredRollouts, sampling: AdaptiveSampling, orders: int = 16, seed: int = 0) -> Replay:
    """Waves of candidates until a prompt has enough, averaged over random orders of its rollouts.

    Rollouts of a prompt are exchangeable, so every order is as good a replay as the one they were sampled in.

    Args:
        orders: How many orders are averaged over.
    """
    rng = np.random.default_rng(seed)
    replays = []
    for _ in range(orders):
        order = np.argsort(rng.random(scored.lengths.shape), axis=1)
        lengths, labels, rewards = (
            np.take_along_axis(array, order, axis=1) for array in (scored.lengths, scored.labels, scored.rewards)
        )
        tokens, finished = adaptive_candidates(sampling, rewards, lengths)
        replays.append(_outcome(tokens.sum(axis=1), labels, rewards, finished))
    return Replay(
        np.mean([replay.tokens for replay in replays], axis=0),
        np.mean([replay.right for replay in replays], axis=0),
        np.stack([replay.winner_rewards for replay in replays], axis=-1),
    )


def adaptive_candidates(
    sampling: AdaptiveSampling, rewards: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What is sampled when candidates come in this order.

    Args:
        rewards: (prompts, n) R of the whole rollouts.
        lengths: (prompts, n) their tokens.

    Returns:
        (prompts, n) tokens sampled of each, and (prompts, n) bool, which were sampled to their ends.
    """
    trusted = np.stack(
        [
            sampling.enough(torch.from_numpy(rewards[:, i : i + 1]), torch.ones(len(rewards), 1, dtype=torch.bool))
            for i in range(rewards.shape[1])
        ],
        axis=1,
    )
    tokens = np.zeros_like(lengths)
    going_on = np.ones(len(lengths), dtype=bool)
    start = 0
    for end in sampling.wave_ends(rewards.shape[1]):
        wave = slice(start, end)
        # A wave ends where its first trusted candidate does
        last = np.where(trusted[:, wave], lengths[:, wave], lengths.max()).min(axis=1, keepdims=True)
        tokens[going_on, wave] = np.minimum(lengths[:, wave], last)[going_on]
        going_on &= ~trusted[:, wave].any(axis=1)
        start = end
    return tokens, tokens == lengths


def _outcome(tokens: np.ndarray, labels: np.ndarray, rewards: np.ndarray, candidates: np.ndarray) -> Replay:
    eligible = np.where(candidates, rewards, -np.inf)
    winners = eligible.argmax(axis=1)[:, None]
    right = np.take_along_axis(labels, winners, axis=1)[:, 0]
    return Replay(
        tokens.astype(np.float64), right.astype(np.float64), np.take_along_axis(rewards, winners, axis=1)[:, 0]
    )
