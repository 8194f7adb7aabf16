"""Calibration: from a reward R to a probability that can be taken at its word, P = sigmoid(slope R + offset)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .logistic import fit_logistic


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


def fit_calibration(rewards: np.ndarray, labels: np.ndarray) -> Calibration:
    """The maximum-likelihood calibration, with Platt's targets.

    The targets are (right + 1) / (right + 2) and 1 / (wrong + 2) in place of 1 and 0 (Platt 1999): the slope stays
    finite where a threshold parts right from wrong, and with many rollouts nothing changes.

    Args:
        rewards: (rollouts,) float64, of prompts that the head was not trained on.
        labels: (rollouts,) bool.

    Raises:
        ValueError: Labels all of one class, rewards that are not finite, or a slope that is not above zero: higher
            rewards are not right more often, so the head has learned nothing that a calibration could bring out.
    """
    right = int(labels.sum())
    wrong = len(labels) - right
    if not right or not wrong:
        raise ValueError(f"Expected right and wrong rollouts, got {right} and {wrong}: hold out more prompts.")
    targets = np.where(labels, (right + 1) / (right + 2), 1 / (wrong + 2))
    offset, slope = fit_logistic(rewards.astype(np.float64)[:, None], targets)
    if not slope > 0:
        raise ValueError(
            f"Expected higher rewards to be right more often, got a slope of {slope:.3g}: train on more prompts."
        )
    return Calibration(float(slope), float(offset))


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
