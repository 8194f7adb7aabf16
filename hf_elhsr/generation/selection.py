"""Selection: which candidates win."""

import torch


def select_winners(rewards: torch.Tensor, k: int = 1, finished: torch.Tensor | None = None) -> torch.Tensor:
    """The k candidates with the highest reward of every prompt, best first; of equal ones the earlier.

    Args:
        rewards: (batch, n).
        k: How many, at most n.
        finished: (batch, n) bool, who may win: at least k of every prompt. Default: all.

    Returns:
        (batch, k) long, indices of candidates.

    Raises:
        ValueError: A reward is NaN or infinite, so that no order exists.
    """
    if finished is None:
        finished = torch.ones_like(rewards, dtype=torch.bool)
    if not bool(torch.isfinite(rewards).all()):
        prompt, candidate = (int(i) for i in (~torch.isfinite(rewards)).nonzero()[0])
        raise ValueError(
            f"The reward of candidate {candidate} of prompt {prompt} is {float(rewards[prompt, candidate])}: the "
            "model's hidden states overflowed or hold NaN. Load the model in bfloat16 or float32, not float16."
        )
    return rewards.masked_fill(~finished, -torch.inf).argsort(dim=-1, descending=True, stable=True)[:, :k]
