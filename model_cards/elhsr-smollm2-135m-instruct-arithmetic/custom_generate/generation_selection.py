# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/selection.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""Selection: which candidates win."""

import torch


def select_winners(
    rewards: torch.Tensor, k: int = 1, finished: torch.Tensor | None = None, ties: torch.Tensor | None = None
) -> torch.Tensor:
    """The k candidates with the highest reward of every prompt, best first; of equal ones the earlier.

    Args:
        rewards: (batch, n).
        k: How many, at most n.
        finished: (batch, n) bool, who may win: at least k of every prompt. Default: all.
        ties: (batch, n), by which equal ones are ordered, highest first, before the earlier wins.

    Returns:
        (batch, k) long, indices of candidates.

    Raises:
        ValueError: A reward is NaN or infinite, so that no order exists.
    """
    if finished is None:
        finished = torch.ones_like(rewards, dtype=torch.bool)
    check_finite(rewards)
    judged = rewards.masked_fill(~finished, -torch.inf)
    if ties is None:
        return judged.argsort(dim=-1, descending=True, stable=True)[:, :k]
    order = ties.argsort(dim=-1, descending=True, stable=True)
    return order.gather(-1, judged.gather(-1, order).argsort(dim=-1, descending=True, stable=True))[:, :k]


def check_finite(rewards: torch.Tensor) -> None:
    """Refuse a head's (batch, n) rewards that have no order.

    Raises:
        ValueError: One is NaN or infinite.
    """
    if not bool(torch.isfinite(rewards).all()):
        prompt, candidate = (int(i) for i in (~torch.isfinite(rewards)).nonzero()[0])
        raise ValueError(
            f"The reward of candidate {candidate} of prompt {prompt} is {float(rewards[prompt, candidate])}: the "
            "model's hidden states overflowed or hold NaN. Load the model in bfloat16 or float32, not float16."
        )
