"""Evaluation: how often the chosen candidate is right, against baselines, with intervals over prompts."""

from .best_of_n import STRATEGIES, Evaluation, Measured, evaluate_rollouts
from .tradeoff import TradeOff, measure_tradeoff
from .tradeoff_plot import plot_tradeoff

__all__ = [
    "STRATEGIES",
    "Evaluation",
    "Measured",
    "TradeOff",
    "evaluate_rollouts",
    "measure_tradeoff",
    "plot_tradeoff",
]
