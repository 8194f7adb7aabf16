# Made by hf_elhsr 0.1.0 from its hf_elhsr/rewards/voting.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""Votes: every candidate's reward becomes what all candidates with its answer have together."""

from collections.abc import Callable, Sequence

import torch

#: By the names that `generate(combine=)` takes: (batch, n) rewards -> (batch, n) votes.
VOTES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "majority_vote": torch.ones_like,
    "weighted_vote": torch.sigmoid,
}


def votes_for_answers(votes: torch.Tensor, answers: Sequence[Sequence[str | None]]) -> torch.Tensor:
    """The sum of the votes of all candidates that give the same answer; 0 for those without an answer.

    Args:
        votes: (batch, n) float32, at least 0.
        answers: Of every candidate of every prompt; None where it gives none.

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
