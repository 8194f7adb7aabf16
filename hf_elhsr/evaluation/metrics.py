"""Metrics: how well rewards separate correct from incorrect rollouts, and how well probabilities are calibrated."""

import numpy as np


def area_under_curve(rewards: np.ndarray, labels: np.ndarray) -> float:
    """The probability that a correct rollout has a higher reward than an incorrect one, with ties counted as half.

    Args:
        rewards: (rollouts,) float64.
        labels: (rollouts,) bool, with both values present.
    """
    order = np.argsort(rewards, kind="stable")
    _, inverse, counts = np.unique(rewards[order], return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = np.empty(len(rewards))
    ranks[order] = (last - (counts - 1) / 2)[inverse]
    correct = int(labels.sum())
    incorrect = len(labels) - correct
    return float((ranks[labels].sum() - correct * (correct + 1) / 2) / (correct * incorrect))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Mean distance between predicted probability and share of correct rollouts, over bins of equal width."""
    places = np.minimum((probabilities * bins).astype(int), bins - 1)
    error = 0.0
    for place in range(bins):
        inside = places == place
        if inside.any():
            error += inside.mean() * abs(probabilities[inside].mean() - labels[inside].mean())
    return float(error)


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance between predicted probability and label: calibration and sharpness in one number.

    Args:
        probabilities: (rollouts,) float64.
        labels: (rollouts,) bool.
    """
    return float(np.square(probabilities - labels).mean())
