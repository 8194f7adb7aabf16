"""fit_calibration: the calibration of a head, from held-out rollouts."""

import numpy as np

from .calibration import Calibration
from .logistic import fit_logistic


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
        raise ValueError(f"Expected right and wrong rollouts, got {right} and {wrong}: use more prompts.")
    targets = np.where(labels, (right + 1) / (right + 2), 1 / (wrong + 2))
    offset, slope = fit_logistic(rewards.astype(np.float64)[:, None], targets)
    if not slope > 0:
        raise ValueError(
            f"Expected higher rewards to be right more often, got a slope of {slope:.3g}: train on more prompts."
        )
    return Calibration(float(slope), float(offset))
