"""Calibration: from a reward R to a probability that can be taken at its word, P = sigmoid(slope R + offset)."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Calibration:
    """Temperature scaling with an offset (Platt): P(right) = sigmoid(slope R + offset).

    Args:
        slope: Above zero, so that the order of candidates stays: the reciprocal of the temperature.
        offset: Moves all logits; zero where the rewards are right on average already.
    """

    slope: float
    offset: float

    def probability(self, rewards: torch.Tensor) -> torch.Tensor:
        """P(right) for rewards of any shape, in their dtype."""
        return torch.sigmoid(self.slope * rewards + self.offset)


def rollout_calibration(config: dict[str, Any] | None) -> Calibration:
    """For any one rollout, from a head's `config.calibration`.

    Raises:
        ValueError: The head has none.
    """
    config = _present(config)
    return Calibration(config["slope"], config["offset"])


def winner_calibration(config: dict[str, Any] | None) -> Calibration:
    """For the best of n, from a head's `config.calibration`; what a confidence is made with.

    A winner is a maximum over candidates, so a candidate's own calibration is too hopeful of it: among equally good
    candidates the one whose reward errs upwards wins. This one was fitted on winners.

    Raises:
        ValueError: The head has none.
    """
    config = _present(config)
    return Calibration(config["winner"]["slope"], config["winner"]["offset"])


def _present(config: dict[str, Any] | None) -> dict[str, Any]:
    if config is None:
        raise ValueError(
            "This reward head has no calibration, so its rewards give no probability: train it with this version of "
            "hf_elhsr, which fits one on the held-out prompts."
        )
    return config
