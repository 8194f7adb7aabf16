"""fit_logistic: logistic regression by Newton's method, for calibrations and pruning schedules."""

import numpy as np


def fit_logistic(features: np.ndarray, targets: np.ndarray, ridge: float = 0.0) -> np.ndarray:
    """Minimise -sum [y log p + (1 - y) log(1 - p)] + ridge/2 |w|^2 with p = sigmoid(c + w x), x standardised.

    The ridge acts on the weights of standardised features, never on the intercept, so its effect does not depend on the
    features' scales. A feature that does not vary gets the weight zero.

    Args:
        features: (rows, k) float64.
        targets: (rows,) float64 in [0, 1], neither all 0 nor all 1.
        ridge: Weight of the penalty.

    Returns:
        (1 + k,) float64: intercept and weights for the features as given.

    Raises:
        ValueError: Nothing to fit: no rows, values that are not finite, or targets all 0 or all 1.
    """
    if not len(features) or not np.isfinite(features).all() or not 0 < targets.mean() < 1:
        raise ValueError(
            f"Expected finite features and targets of both kinds, got {len(features)} rows with targets of mean "
            f"{targets.mean() if len(targets) else float('nan'):.3f}: sample more prompts."
        )
    mean, std = features.mean(axis=0), features.std(axis=0)
    varies = std > 1e-9 * np.abs(mean) + 1e-12
    scale = np.where(varies, std, 1.0)
    design = np.c_[np.ones(len(features)), (features - mean) * varies / scale]
    # 1e-9 keeps the system solvable where a feature does not vary or the classes can be separated
    penalty = np.r_[0.0, np.full(features.shape[1], ridge + 1e-9 * len(features))]
    coefficients = np.zeros(design.shape[1])
    coefficients[0] = np.log(targets.mean() / (1 - targets.mean()))
    objective = _objective(design, targets, penalty, coefficients)
    for _ in range(100):
        probabilities = sigmoid(design @ coefficients)
        gradient = design.T @ (probabilities - targets) + penalty * coefficients
        curvature = (design * (probabilities * (1 - probabilities))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        # Far from the optimum a full step may overshoot
        for _ in range(30):
            tried = _objective(design, targets, penalty, coefficients - step)
            if tried <= objective:
                break
            step = step / 2
        coefficients, objective = coefficients - step, tried
        if np.abs(step).max() < 1e-10:
            break
    weights = coefficients[1:] * varies / scale
    return np.r_[coefficients[0] - weights @ mean, weights]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 + 0.5 * np.tanh(logits / 2)


def _objective(design: np.ndarray, targets: np.ndarray, penalty: np.ndarray, coefficients: np.ndarray) -> float:
    logits = design @ coefficients
    return float((np.logaddexp(0, logits) - targets * logits).sum() + 0.5 * (penalty * coefficients**2).sum())
