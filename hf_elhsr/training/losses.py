"""Losses: pure functions of rewards and labels."""

import torch
from torch.nn import functional as F


def binary_cross_entropy(rewards: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean of -[y log sigmoid(R) + (1 - y) log(1 - sigmoid(R))]: makes sigmoid(R) an estimate of P(correct).

    Args:
        rewards: (rollouts,) float32.
        labels: (rollouts,), 1 where the final answer is right.
    """
    return F.binary_cross_entropy_with_logits(rewards, labels.to(rewards))


def prefix_cross_entropy(
    token_values: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor, interval: int = 8
) -> torch.Tensor:
    """Binary cross-entropy of V_t = (v_1 + ... + v_t) / t against the label, over prefixes of unfinished completions.

    Prefixes are of interval, 2 interval, ... tokens, and shorter than the completion; the mean is over all of them.
    So sigmoid(V_t) becomes an estimate of P(correct | first t tokens).

    Args:
        token_values: (tokens,) float32, v_t of one rollout after the other.
        lengths: (rollouts,) long, how many tokens each has.
        labels: (rollouts,), 1 where the final answer is right.

    Returns:
        A scalar; 0 where no completion is longer than `interval`.
    """
    steps = torch.arange(interval, max(int(lengths.max()), interval + 1), interval, device=lengths.device)
    sums = token_values.cumsum(0)
    last = lengths.cumsum(0)
    first = last - lengths
    before = sums[first] - token_values[first]
    places = (first[:, None] + steps - 1).clamp_max(len(sums) - 1)
    values = (sums[places] - before[:, None]) / steps
    unfinished = lengths[:, None] > steps
    if not bool(unfinished.any()):
        return token_values.sum() * 0.0
    return binary_cross_entropy(values[unfinished], labels[:, None].expand_as(values)[unfinished])
