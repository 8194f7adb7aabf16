# Made by hf_elhsr 0.1.0 from its hf_elhsr/rewards/combination.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""Combinations: the rewards of several sources, made into one per candidate."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

#: (batch, n, sources) rewards -> (batch, n) float32; the candidate with the highest wins.
Combination = Callable[[torch.Tensor], torch.Tensor]


def worse_of_ranks(rewards: torch.Tensor) -> torch.Tensor:
    """Minus the worst rank that a source gives a candidate among those of its prompt; 1 is the best rank.

    Candidates that a source finds equal share the better rank, so that no source ranks where it has no opinion.
    """
    above = rewards[:, None, :, :] > rewards[:, :, None, :]
    return -(1 + above.sum(dim=2)).amax(dim=-1).float()


def min_max(rewards: torch.Tensor) -> torch.Tensor:
    """The sum over sources of their rewards, scaled so that a prompt's lowest is 0 and its highest 1.

    A source that finds all candidates of a prompt equal adds 0.
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

    Pass it to `generate(combine=)`. It is all numbers, so `dataclasses.asdict` and `json` keep it.

    Args:
        weights: Of every source, in the order of `reward_head`.
        intercept: Added to all.
    """

    weights: tuple[float, ...]
    intercept: float

    def __call__(self, rewards: torch.Tensor) -> torch.Tensor:
        """(batch, n, sources) rewards -> (batch, n) float32 logits.

        Raises:
            ValueError: It was fitted on another number of sources.
        """
        if rewards.shape[-1] != len(self.weights):
            raise ValueError(
                f"This combination was fitted on {len(self.weights)} sources, and {rewards.shape[-1]} are given: pass "
                "those it was fitted on, in the same order."
            )
        weights = torch.tensor(self.weights, dtype=torch.float64)
        return (rewards.double().cpu() @ weights + self.intercept).float().to(rewards.device)
