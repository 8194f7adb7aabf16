"""Bootstrap over prompts: intervals for anything that is computed from one row per prompt."""

from collections.abc import Callable

import numpy as np


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic of column means, prompts drawn with replacement.

    Rollouts of one prompt are alike, so the prompt is what is drawn.

    Args:
        values: (prompts, columns) float64.
        statistic: From (resamples, columns) means to (resamples,) values.

    Returns:
        Lower and upper end.
    """
    rng = np.random.default_rng(seed)
    prompts = len(values)
    means = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, 500):
        drawn = rng.integers(0, prompts, size=(min(500, resamples - start), prompts))
        means[start : start + len(drawn)] = values[drawn].mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        values_of_resamples = statistic(means)
    # A ratio has no value in the rare resample whose denominator is zero
    values_of_resamples = values_of_resamples[np.isfinite(values_of_resamples)]
    low, high = np.quantile(values_of_resamples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
