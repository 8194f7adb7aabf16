"""Adaptive n: candidates come in waves, and a prompt gets no further wave once its best so far is trusted.

In a wave, candidates that are hopeless beside those that finished before are pruned, as `pruning.py` says.
"""

from dataclasses import dataclass
from typing import Any

import torch

from .calibration import Calibration, winner_calibration
from .pruning import PruningSchedule
from .tolerance import setting_for


@dataclass(frozen=True)
class AdaptiveSampling:
    """How many candidates are sampled before looking, and when that is enough.

    Args:
        wave: Candidates per wave; the last wave is smaller where n is no multiple.
        threshold: P(right) of the best candidate so far at which a prompt is done.
        calibration: From its reward to that probability.
        price: At which candidates of a wave that are hopeless beside those finished before are pruned; 0 prunes none.
    """

    wave: int
    threshold: float
    calibration: Calibration
    price: float = 0.0

    @classmethod
    def from_config(
        cls, config: dict[str, Any] | None, calibration: dict[str, Any] | None, regret: float
    ) -> "AdaptiveSampling":
        """The setting for a regret, from a head's `config.adaptive` and `config.calibration`.

        Args:
            regret: How much accuracy may be given up, as a share of prompts, e.g. 0.01.

        Raises:
            ValueError: The head has no such settings, or none for so small a regret.
        """
        if config is None:
            raise ValueError(
                "This reward head has no settings for adaptive n: train it with this version of hf_elhsr, which fits "
                "them on the held-out prompts."
            )
        threshold = setting_for(config["thresholds"], regret, "adaptive")
        price = setting_for(config["prices"], regret, "adaptive")
        return cls(config["wave"], threshold, winner_calibration(calibration), price)

    def schedule(self, config: dict[str, Any] | None) -> PruningSchedule | None:
        """How candidates of a wave are pruned, from the head's `config.pruning`; None where they are not.

        Raises:
            ValueError: There is a price, and no schedule that it could belong to.
        """
        if not self.price:
            return None
        if config is None:
            raise ValueError(
                f"The head's config has a damaged adaptive: a price of {self.price} and no pruning schedule. Download "
                "or save the head again, or set adaptive to null."
            )
        return PruningSchedule.with_price(config, self.price)

    def wave_ends(self, n: int) -> list[int]:
        """How many candidates a prompt has after each wave, n the last."""
        return [*range(self.wave, n, self.wave), n]

    def enough(self, rewards: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
        """Which prompts need no further wave.

        Args:
            rewards: (batch, n) rewards R; those of candidates not sampled, or pruned, are not looked at.
            sampled: (batch, n) bool, finished candidates.

        Returns:
            (batch,) bool.
        """
        best = rewards.masked_fill(~sampled, -torch.inf).amax(dim=-1)
        # In float32 a sigmoid of 1, which a threshold of 1 must not be reached by, is not far
        return sampled.any(dim=-1) & (self.calibration.probability(best.double()) >= self.threshold)
