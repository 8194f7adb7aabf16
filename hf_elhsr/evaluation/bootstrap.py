"""Bootstrap over prompts: intervals for anything that is computed from one row per prompt."""

from collections.abc import Callable

import numpy as np

_RESAMPLES = 10_000
_AT_ONCE = 500
_GATHERED = 20


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    resamples: int = _RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic of column means, with prompts drawn with replacement.

    Rollouts of the same prompt are correlated, so whole prompts are drawn.

    Args:
        values: (prompts, columns) float64.
        statistic: From (resamples, columns) means to (resamples,) values.

    Returns:
        Lower and upper end.
    """
    return interval_of(statistic, resampled_means(values, resamples, seed), level)


def resampled_means(values: np.ndarray, resamples: int = _RESAMPLES, seed: int = 0) -> np.ndarray:
    """(resamples, columns): column means over resampled prompts, with the same draw for all columns (paired)."""
    rng = np.random.default_rng(seed)
    prompts = len(values)
    means = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, _AT_ONCE):
        drawn = rng.integers(0, prompts, size=(min(_AT_ONCE, resamples - start), prompts))
        for part in range(0, len(drawn), _GATHERED):
            own = drawn[part : part + _GATHERED]
            # Equal columns give equal means to the last bit, which a matrix product does not guarantee
            means[start + part : start + part + len(own)] = values[own].mean(axis=1)
    return means


def interval_of(
    statistic: Callable[[np.ndarray], np.ndarray], means: np.ndarray, level: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of a statistic of [`resampled_means`]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(means)
    # A ratio has no value in the rare resample whose denominator is zero
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
