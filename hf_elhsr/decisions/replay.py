"""Replays: what pruning or adaptive n would have sampled and chosen, told from rollouts that were sampled whole.

A replay is exact, not a model: a candidate's tokens do not depend on what becomes of the others, so dropping it is to
cut its rollout short. The rules are the ones that the decoding loop calls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .adaptive import AdaptiveSampling
from .pruning import PruningSchedule, hopeless
from .scored_rollouts import ScoredRollouts

#: From rollouts and a number of tokens to (prompts, n, k) features of the prefixes.
Judge = Callable[[ScoredRollouts, int], torch.Tensor]


@dataclass(frozen=True)
class Replay:
    """What came of every prompt.

    Args:
        tokens: (prompts,) float64, sampled tokens of all candidates together.
        correct: (prompts,) float64, whether the winner is right (its mean, where a replay is an average).
        winner_rewards: (prompts,) float64, R of the winner; (prompts, orders) where a replay is an average.
    """

    tokens: np.ndarray
    correct: np.ndarray
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
    samplings: Sequence[AdaptiveSampling],
    schedule: PruningSchedule | None = None,
    orders: int = 16,
    seed: int = 0,
) -> list[Replay]:
    """Waves of candidates until a prompt has enough, averaged over random orders of its rollouts.

    Rollouts of a prompt are exchangeable, so every order is as good a replay as the one they were sampled in.

    Args:
        samplings: Settings to replay, all with waves of one size.
        schedule: Hopeless candidates are dropped inside the waves, too. Default: none are.
        orders: How many orders are averaged over.

    Returns:
        One [`Replay`] per setting.
    """
    rng = np.random.default_rng(seed)
    ends = samplings[0].wave_ends(scored.lengths.shape[1])
    by_order = []
    for _ in range(orders):
        order = np.argsort(rng.random(scored.lengths.shape), axis=1)
        own = scored.reordered(order)
        cut = None if schedule is None else pruned_waves(own, schedule, ends)
        by_order.append([_adaptive(sampling, own, cut) for sampling in samplings])
    return [
        Replay(
            np.mean([replay.tokens for replay in replays], axis=0),
            np.mean([replay.correct for replay in replays], axis=0),
            np.stack([replay.winner_rewards for replay in replays], axis=-1),
        )
        for replays in zip(*by_order, strict=True)
    ]


def _adaptive(sampling: AdaptiveSampling, scored: ScoredRollouts, cut: "Cut | None") -> Replay:
    tokens, finished = adaptive_candidates(sampling, scored, cut)
    return _outcome(tokens.sum(axis=1), scored.labels, scored.rewards, finished)


#: (prompts, n) tokens of every candidate up to its end or its drop, and (prompts, n) bool, which are dropped.
Cut = tuple[np.ndarray, np.ndarray]


def adaptive_candidates(
    sampling: AdaptiveSampling, scored: ScoredRollouts, cut: Cut | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What is sampled when candidates come in the order that they have here.

    Args:
        cut: What pruning leaves of them where every prompt gets all its waves, see [`pruned_waves`].

    Returns:
        (prompts, n) tokens sampled of each, and (prompts, n) bool, which were sampled to their ends.
    """
    lengths = scored.lengths
    prompts, n = lengths.shape
    one_by_one = torch.from_numpy(scored.rewards).reshape(-1, 1)
    trusted = sampling.enough(one_by_one, torch.ones_like(one_by_one, dtype=torch.bool)).numpy().reshape(prompts, n)
    # Where nothing is dropped, a candidate gets all its tokens
    tokens_before_drop, dropped = cut or (lengths, np.zeros(lengths.shape, dtype=bool))
    tokens = np.zeros_like(lengths)
    going_on = np.ones(prompts, dtype=bool)
    start = 0
    for end in sampling.wave_ends(n):
        wave = (np.arange(n) < end) & (np.arange(n) >= start) & going_on[:, None]
        # A prompt's wave ends where its first trusted candidate does
        ending = wave & trusted & ~dropped
        stop = np.where(ending, lengths, lengths.max()).min(axis=1)
        tokens[wave] = np.minimum(tokens_before_drop, stop[:, None])[wave]
        going_on &= ~ending.any(axis=1)
        start = end
    return tokens, tokens == lengths


def pruned_waves(scored: ScoredRollouts, schedule: PruningSchedule, ends: list[int]) -> Cut:
    """What pruning leaves of candidates that come in waves, if every prompt gets all of them.

    Checks go on where a trusted candidate has ended a prompt's waves: whom they drop then is never sampled, or has been
    cut before.

    Args:
        ends: How many candidates a prompt has after each wave.
    """
    lengths, longest = scored.lengths, int(scored.lengths.max())
    tokens, dropped = lengths.copy(), np.zeros(lengths.shape, dtype=bool)
    whole = scored.prefix_features(longest)
    numbers = np.arange(lengths.shape[1])
    checks = {steps: scored.prefix_features(steps) for steps in range(schedule.interval, longest, schedule.interval)}
    for start, end in zip([0, *ends], ends, strict=False):
        begun = numbers < end
        for steps, prefixes in checks.items():
            running = torch.from_numpy(begun & (numbers >= start) & ~dropped & (lengths > steps))
            # Candidates of earlier waves are finished, whatever their length
            features = torch.where(running[..., None], prefixes, whole)
            now = hopeless(schedule, features, running, torch.from_numpy(dropped | ~begun), steps).numpy()
            tokens[now] = steps
            dropped |= now
    return tokens, dropped


def _outcome(tokens: np.ndarray, labels: np.ndarray, rewards: np.ndarray, candidates: np.ndarray) -> Replay:
    eligible = np.where(candidates, rewards, -np.inf)
    winners = eligible.argmax(axis=1)[:, None]
    right = np.take_along_axis(labels, winners, axis=1)[:, 0]
    return Replay(
        tokens.astype(np.float64), right.astype(np.float64), np.take_along_axis(rewards, winners, axis=1)[:, 0]
    )
