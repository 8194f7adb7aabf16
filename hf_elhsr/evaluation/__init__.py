"""Evaluation: how often the winner is correct, compared with baselines, with intervals over prompts."""

from .best_of_n import STRATEGIES, Evaluation, Measured, evaluate_rollouts
from .report import evaluation_markdown, plot_evaluation, plot_tradeoff
from .tradeoff import TradeOff, measure_tradeoff

__all__ = [
    "STRATEGIES",
    "Evaluation",
    "Measured",
    "TradeOff",
    "evaluate_rollouts",
    "evaluation_markdown",
    "measure_tradeoff",
    "plot_evaluation",
    "plot_tradeoff",
]
