"""Selection: which candidates win."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

#: (batch, n, sources) rewards -> (batch, n) float32; the candidate with the highest wins.
Combination = Callable[[torch.Tensor], torch.Tensor]


def worse_of_ranks(rewards: torch.Tensor) -> torch.Tensor:
    """Minus the worst rank that any source gives a candidate among those of its prompt; 1 is the best rank.

    Candidates with equal rewards share the better rank, so that a source without a preference does not rank them.
    """
    above = rewards[:, None, :, :] > rewards[:, :, None, :]
    return -(1 + above.sum(dim=2)).amax(dim=-1).float()


def min_max(rewards: torch.Tensor) -> torch.Tensor:
    """The sum over sources of their rewards, each scaled so that a prompt's lowest is 0 and its highest 1.

    A source that gives all candidates of a prompt the same reward adds 0.
    """
    # Differences of large rewards would round in float32
    shifted = rewards.double() - rewards.double().amin(dim=1, keepdim=True)
    spread = shifted.amax(dim=1, keepdim=True)
    return torch.where(spread > 0, shifted / spread, 0.0).sum(dim=-1).float()


#: By the names that `generate(combine=)` takes.
COMBINATIONS: dict[str, Combination] = {"worse_of_ranks": worse_of_ranks, "min_max": min_max}


@dataclass(frozen=True)
class LearnedCombination:
    """intercept + sum over sources of weight times reward: a logit of P(correct), made by [`fit_combination`].

    Pass it to `generate(combine=)`. It holds only numbers: save it with `dataclasses.asdict` and `json`.

    Args:
        weights: One for each source, in the order of `reward_head`.
        intercept: Added to every candidate's sum.
    """

    weights: tuple[float, ...]
    intercept: float

    def __call__(self, rewards: torch.Tensor) -> torch.Tensor:
        """(batch, n, sources) rewards -> (batch, n) float32 logits.

        Raises:
            ValueError: It was fitted on a different number of sources.
        """
        if rewards.shape[-1] != len(self.weights):
            raise ValueError(
                f"This combination was fitted on {len(self.weights)} sources, and {rewards.shape[-1]} are given: pass "
                "those it was fitted on, in the same order."
            )
        weights = torch.tensor(self.weights, dtype=torch.float64)
        return (rewards.double().cpu() @ weights + self.intercept).float().to(rewards.device)


#: By the names that `generate(combine=)` takes: (batch, n) rewards -> (batch, n) votes.
VOTES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "majority_vote": torch.ones_like,
    "weighted_vote": torch.sigmoid,
}


def votes_for_answers(votes: torch.Tensor, answers: Sequence[Sequence[str | None]]) -> torch.Tensor:
    """The sum of the votes of all candidates that give the same answer; 0 for those without an answer.

    Args:
        votes: (batch, n) float32, at least 0.
        answers: The answer of every candidate of every prompt; None for candidates without one.

    Returns:
        (batch, n) float32. Equal answers get equal sums to the bit.
    """
    totals: list[list[float]] = []
    for own, row in zip(votes.double().tolist(), answers, strict=True):
        by_answer: dict[str | None, float] = {}
        for vote, answer in zip(own, row, strict=True):
            by_answer[answer] = by_answer.get(answer, 0.0) + vote
        totals.append([0.0 if answer is None else by_answer[answer] for answer in row])
    return torch.tensor(totals, dtype=torch.float32, device=votes.device)


def select_winners(
    rewards: torch.Tensor, k: int = 1, finished: torch.Tensor | None = None, ties: torch.Tensor | None = None
) -> torch.Tensor:
    """The k candidates with the highest reward of every prompt, best first; of equal ones the earlier wins.

    Args:
        rewards: (batch, n).
        k: How many, at most n.
        finished: (batch, n) bool, which candidates may win: at least k of every prompt. Default: all.
        ties: (batch, n), which orders candidates of equal reward, highest first. Default: the earlier wins.

    Returns:
        (batch, k) long, indices of candidates.

    Raises:
        ValueError: A reward is NaN or infinite, so that no order exists.
    """
    if finished is None:
        finished = torch.ones_like(rewards, dtype=torch.bool)
    check_finite(rewards)
    eligible = rewards.masked_fill(~finished, -torch.inf)
    if ties is None:
        return eligible.argsort(dim=-1, descending=True, stable=True)[:, :k]
    order = ties.argsort(dim=-1, descending=True, stable=True)
    return order.gather(-1, eligible.gather(-1, order).argsort(dim=-1, descending=True, stable=True))[:, :k]


def check_finite(rewards: torch.Tensor) -> None:
    """Refuse (batch, n) rewards that cannot be ordered.

    Raises:
        ValueError: One is NaN or infinite.
    """
    if not bool(torch.isfinite(rewards).all()):
        prompt, candidate = (int(i) for i in (~torch.isfinite(rewards)).nonzero()[0])
        raise ValueError(
            f"The reward of candidate {candidate} of prompt {prompt} is {float(rewards[prompt, candidate])}: the "
            "model's hidden states overflowed or hold NaN. Load the model in bfloat16 or float32, not float16."
        )
