"""Adaptive n: candidates come in waves, and a prompt gets no further wave once its best so far is trusted.

Within a wave, candidates that have no chance against those already finished are pruned, see `pruning.py`.
"""

from dataclasses import dataclass

import torch

from .._checks import quoted
from .calibration import Line
from .decision import Decision, check_counts, check_settings, setting_for
from .pruning import Pruning, PruningRule


@dataclass(frozen=True)
class AdaptiveRule:
    """How many candidates a wave has, and when a prompt needs no further wave.

    Args:
        wave: Candidates per wave; the last wave is smaller where n is not a multiple.
        threshold: P(correct) of the best candidate so far at which a prompt is done.
        winner: The line from its reward to that probability, see `Calibration.winner`.
        price: The price at which hopeless candidates of a wave are pruned, see [`PruningRule`]; 0 prunes none.
    """

    wave: int
    threshold: float
    winner: Line
    price: float = 0.0

    def pruning_rule(self, pruning: Pruning | None) -> PruningRule | None:
        """The rule that prunes candidates of a wave, from the head's `config.pruning`; None if none are pruned.

        Raises:
            ValueError: There is a price but no pruning schedule.
        """
        if not self.price:
            return None
        if pruning is None:
            raise ValueError(
                f"The head's config has a damaged adaptive: a price of {self.price} but no pruning schedule. Download "
                "or save the head again, or set adaptive to null."
            )
        return pruning.at_price(self.price)

    def wave_ends(self, n: int) -> list[int]:
        """How many candidates a prompt has after each wave; the last entry is n."""
        return [*range(self.wave, n, self.wave), n]

    def enough(self, rewards: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
        """Which prompts need no further wave.

        Args:
            rewards: (batch, n) rewards R; those of candidates not sampled, or pruned, are ignored.
            sampled: (batch, n) bool, finished candidates.

        Returns:
            (batch,) bool.
        """
        best = rewards.masked_fill(~sampled, -torch.inf).amax(dim=-1)
        # In float32 a sigmoid reaches 1 early, and a threshold of 1 must never be reached
        return sampled.any(dim=-1) & (self.winner.probability(best.double()) >= self.threshold)


@dataclass(frozen=True)
class Adaptive(Decision):
    """Fitted thresholds and prices of an [`AdaptiveRule`], by tolerance.

    Args:
        wave: Candidates per wave.
        thresholds: From tolerances, as text, to P(correct) of the best candidate so far at which a prompt is done.
        prices: From the same tolerances to the price at which hopeless candidates of a wave are pruned; 0 prunes none.
        n: Candidates per prompt that it was fitted with.
        prompts: How many held-out prompts it was fitted on.
    """

    name = "adaptive"
    missing = (
        "This reward head has no settings for adaptive n: train it with this version of hf_elhsr, which fits "
        "them on the held-out prompts."
    )

    wave: int
    thresholds: dict[str, float]
    prices: dict[str, float]
    n: int
    prompts: int

    def __post_init__(self) -> None:
        check_counts(wave=self.wave, n=self.n, prompts=self.prompts)
        check_settings("thresholds", self.thresholds, "probabilities")
        check_settings("prices", self.prices, "prices between 0 and 1")
        if self.prices.keys() != self.thresholds.keys():
            raise ValueError(
                "thresholds and prices must have the same tolerances, got "
                f"{quoted([*self.thresholds])} and {quoted([*self.prices])}"
            )

    def rule(self, tolerance: float, winner: Line) -> AdaptiveRule:
        """The rule for a tolerance: how much accuracy may be given up, as a share of prompts, e.g. 0.01.

        Args:
            winner: The head's `config.calibration.winner`.

        Raises:
            ValueError: Nothing was fitted for so small a tolerance.
        """
        threshold = setting_for(self.thresholds, tolerance, "adaptive")
        price = setting_for(self.prices, tolerance, "adaptive")
        return AdaptiveRule(self.wave, threshold, winner, price)
