"""Replays: what pruning or adaptive n would have sampled and selected, computed from rollouts that were sampled whole.

A replay is exact: a candidate's tokens do not depend on what happens to the others, so dropping it means cutting its
rollout short. The rules are the ones that the decoding loop calls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .adaptive import AdaptiveRule
from .pruning import PruningRule
from .scored_rollouts import ScoredRollouts

#: From rollouts and a number of tokens to (prompts, n, k) features of the prefixes, which a pruning rule reads.
PrefixFeatures = Callable[[ScoredRollouts, int], torch.Tensor]


@dataclass(frozen=True)
class Replay:
    """The outcome of every prompt.

    Args:
        tokens: (prompts,) float64, sampled tokens of all candidates together.
        correct: (prompts,) float64, whether the winner is correct (its mean, where a replay is an average).
        winner_rewards: (prompts,) float64, R of the winner; (prompts, orders) where a replay is an average.
    """

    tokens: np.ndarray
    correct: np.ndarray
    winner_rewards: np.ndarray


def replay_exact(scored: ScoredRollouts) -> Replay:
    """Exact best-of-n: every candidate to its end, and the highest R wins."""
    return _outcome(scored.lengths.sum(axis=1), scored.labels, scored.rewards, np.ones_like(scored.labels))


def replay_pruning(
    scored: ScoredRollouts, rule: PruningRule, prefix_features: PrefixFeatures = ScoredRollouts.prefix_features
) -> Replay:
    """Pruning: a prompt's candidates decode in step, hopeless ones are dropped, and the highest R of the rest wins.

    Args:
        prefix_features: What the rule reads.
    """
    ends = torch.from_numpy(scored.lengths)
    pruned = torch.zeros(ends.shape, dtype=torch.bool)
    tokens = ends.clone()
    for steps in range(rule.interval, int(ends.max()), rule.interval):
        running = (ends > steps) & ~pruned
        dropped = rule.hopeless(prefix_features(scored, steps), running, pruned, steps)
        pruned |= dropped
        tokens[dropped] = steps
    return _outcome(tokens.sum(dim=1).numpy(), scored.labels, scored.rewards, ~pruned.numpy())


def replay_adaptive(
    scored: ScoredRollouts,
    rules: Sequence[AdaptiveRule],
    pruning: PruningRule | None = None,
    orders: int = 16,
    seed: int = 0,
) -> list[Replay]:
    """Adaptive n: waves of candidates until a prompt has enough, averaged over random orders of its rollouts.

    Rollouts of a prompt are exchangeable, so every order is as good a replay as the one they were sampled in.

    Args:
        rules: The rules to replay, all with waves of the same size.
        pruning: Also drop hopeless candidates within the waves. Default: none are dropped.
        orders: How many orders are averaged over.

    Returns:
        One [`Replay`] per rule.
    """
    rng = np.random.default_rng(seed)
    ends = rules[0].wave_ends(scored.lengths.shape[1])
    by_order = []
    for _ in range(orders):
        order = np.argsort(rng.random(scored.lengths.shape), axis=1)
        own = scored.reordered(order)
        cut = None if pruning is None else pruned_waves(own, pruning, ends)
        by_order.append([_adaptive(rule, own, cut) for rule in rules])
    return [
        Replay(
            np.mean([replay.tokens for replay in replays], axis=0),
            np.mean([replay.correct for replay in replays], axis=0),
            np.stack([replay.winner_rewards for replay in replays], axis=-1),
        )
        for replays in zip(*by_order, strict=True)
    ]


def _adaptive(rule: AdaptiveRule, scored: ScoredRollouts, cut: "Cut | None") -> Replay:
    tokens, finished = adaptive_candidates(rule, scored, cut)
    return _outcome(tokens.sum(axis=1), scored.labels, scored.rewards, finished)


#: (prompts, n) tokens of every candidate until it ends or is dropped, and (prompts, n) bool, which are dropped.
Cut = tuple[np.ndarray, np.ndarray]


def adaptive_candidates(
    rule: AdaptiveRule, scored: ScoredRollouts, cut: Cut | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What adaptive n samples if candidates come in the order that they have here.

    Args:
        cut: What pruning leaves of them if every prompt gets all its waves, see [`pruned_waves`].

    Returns:
        (prompts, n) tokens sampled of each, and (prompts, n) bool, which were sampled to their ends.
    """
    lengths = scored.lengths
    prompts, n = lengths.shape
    one_by_one = torch.from_numpy(scored.rewards).reshape(-1, 1)
    trusted = rule.enough(one_by_one, torch.ones_like(one_by_one, dtype=torch.bool)).numpy().reshape(prompts, n)
    # Without drops, every candidate gets all its tokens
    tokens_before_drop, dropped = cut or (lengths, np.zeros(lengths.shape, dtype=bool))
    tokens = np.zeros_like(lengths)
    continuing = np.ones(prompts, dtype=bool)
    start = 0
    for end in rule.wave_ends(n):
        wave = (np.arange(n) < end) & (np.arange(n) >= start) & continuing[:, None]
        # A prompt's wave ends where its first trusted candidate does
        ending = wave & trusted & ~dropped
        stop = np.where(ending, lengths, lengths.max()).min(axis=1)
        tokens[wave] = np.minimum(tokens_before_drop, stop[:, None])[wave]
        continuing &= ~ending.any(axis=1)
        start = end
    return tokens, tokens == lengths


def pruned_waves(scored: ScoredRollouts, rule: PruningRule, ends: list[int]) -> Cut:
    """What pruning leaves of candidates that come in waves, if every prompt gets all of them.

    Checks continue where a trusted candidate has ended a prompt's waves: what they drop then is never sampled, or was
    cut before.

    Args:
        ends: How many candidates a prompt has after each wave.
    """
    lengths, longest = scored.lengths, int(scored.lengths.max())
    tokens, dropped = lengths.copy(), np.zeros(lengths.shape, dtype=bool)
    whole = scored.prefix_features(longest)
    numbers = np.arange(lengths.shape[1])
    checks = {steps: scored.prefix_features(steps) for steps in range(rule.interval, longest, rule.interval)}
    for start, end in zip([0, *ends], ends, strict=False):
        begun = numbers < end
        for steps, prefixes in checks.items():
            running = torch.from_numpy(begun & (numbers >= start) & ~dropped & (lengths > steps))
            # Candidates of earlier waves are finished, whatever their length
            features = torch.where(running[..., None], prefixes, whole)
            now = rule.hopeless(features, running, torch.from_numpy(dropped | ~begun), steps).numpy()
            tokens[now] = steps
            dropped |= now
    return tokens, dropped


def _outcome(tokens: np.ndarray, labels: np.ndarray, rewards: np.ndarray, candidates: np.ndarray) -> Replay:
    eligible = np.where(candidates, rewards, -np.inf)
    winners = eligible.argmax(axis=1)[:, None]
    correct = np.take_along_axis(labels, winners, axis=1)[:, 0]
    return Replay(
        tokens.astype(np.float64), correct.astype(np.float64), np.take_along_axis(rewards, winners, axis=1)[:, 0]
    )
