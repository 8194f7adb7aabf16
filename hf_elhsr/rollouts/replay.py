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


def replay_adaptive(
    scored: ScoredRollouts,
    sampling: AdaptiveSampling,
    schedule: PruningSchedule | None = None,
    orders: int = 16,
    seed: int = 0,
) -> Replay:
    """Waves of candidates until a prompt has enough, averaged over random orders of its rollouts.

    Rollouts of a prompt are exchangeable, so every order is as good a replay as the one they were sampled in.

    Args:
        schedule: Hopeless candidates are dropped inside the waves, too. Default: none are.
        orders: How many orders are averaged over.
    """
    rng = np.random.default_rng(seed)
    replays = []
    for _ in range(orders):
        order = np.argsort(rng.random(scored.lengths.shape), axis=1)
        own = scored.reordered(order)
        tokens, finished = adaptive_candidates(sampling, own, schedule)
        replays.append(_outcome(tokens.sum(axis=1), own.labels, own.rewards, finished))
    return Replay(
        np.mean([replay.tokens for replay in replays], axis=0),
        np.mean([replay.right for replay in replays], axis=0),
        np.stack([replay.winner_rewards for replay in replays], axis=-1),
    )


def adaptive_candidates(
    sampling: AdaptiveSampling, scored: ScoredRollouts, schedule: PruningSchedule | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What is sampled when candidates come in the order that they have here.

    Returns:
        (prompts, n) tokens sampled of each, and (prompts, n) bool, which were sampled to their ends.
    """
    lengths, rewards = scored.lengths, torch.from_numpy(scored.rewards)
    prompts, n = lengths.shape
    one = torch.ones(prompts, 1, dtype=torch.bool)
    trusted = np.stack([sampling.enough(rewards[:, i : i + 1], one) for i in range(n)], axis=1)
    tokens = np.zeros_like(lengths)
    pruned = np.zeros(lengths.shape, dtype=bool)
    going_on = np.ones(prompts, dtype=bool)
    start = 0
    for end in sampling.wave_ends(n):
        wave = (np.arange(n) >= start) & (np.arange(n) < end) & going_on[:, None]
        if schedule is not None:
            for steps in range(schedule.interval, int(lengths.max()), schedule.interval):
                stop = _first_end(wave & trusted & ~pruned, lengths)
                running = wave & ~pruned & (lengths > steps) & (stop > steps)[:, None]
                dropped = _hopeless(schedule, scored, running, pruned | (np.arange(n) >= end), steps)
                tokens[dropped] = steps
                pruned |= dropped
        # A prompt's wave ends where its first trusted candidate does
        stop = _first_end(wave & trusted & ~pruned, lengths)
        to_the_end = wave & ~pruned
        tokens[to_the_end] = np.minimum(lengths, stop[:, None])[to_the_end]
        going_on &= ~(wave & trusted & ~pruned).any(axis=1)
        start = end
    return tokens, tokens == lengths


def _first_end(candidates: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(prompts,): tokens after which the first of these ends; the longest candidate's where a prompt has none."""
    ends: np.ndarray = np.where(candidates, lengths, lengths.max()).min(axis=1)
    return ends


def _hopeless(
    schedule: PruningSchedule, scored: ScoredRollouts, running: np.ndarray, out: np.ndarray, steps: int
) -> np.ndarray:
    masks = torch.from_numpy(running), torch.from_numpy(out)
    whole = scored.prefix_features(int(scored.lengths.max()))
    # Candidates of earlier waves are finished, whatever their length
    features = torch.where(masks[0][..., None], scored.prefix_features(steps), whole)
    dropped: np.ndarray = hopeless(schedule, features, *masks, steps).numpy()
    return dropped


def _outcome(tokens: np.ndarray, labels: np.ndarray, rewards: np.ndarray, candidates: np.ndarray) -> Replay:
    eligible = np.where(candidates, rewards, -np.inf)
    winners = eligible.argmax(axis=1)[:, None]
    right = np.take_along_axis(labels, winners, axis=1)[:, 0]
    return Replay(
        tokens.astype(np.float64), right.astype(np.float64), np.take_along_axis(rewards, winners, axis=1)[:, 0]
    )
