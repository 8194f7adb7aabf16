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
