"""Evaluation: how often the winner is correct, compared with baselines, with intervals over prompts."""

from .best_of_n import STRATEGIES, Evaluation, Measured, evaluate_rollouts
from .metrics import area_under_curve
from .report import evaluation_markdown, plot_evaluation, plot_tradeoff, save_figure
from .tradeoff import TradeOff, measure_tradeoff

__all__ = [
    "STRATEGIES",
    "Evaluation",
    "Measured",
    "TradeOff",
    "area_under_curve",
    "evaluate_rollouts",
    "evaluation_markdown",
    "measure_tradeoff",
    "plot_evaluation",
    "plot_tradeoff",
    "save_figure",
]
