"""Evaluation: how often the chosen candidate is right, against baselines, with intervals over prompts."""

from .best_of_n import STRATEGIES, Evaluation, Measured, evaluate_rollouts

__all__ = ["STRATEGIES", "Evaluation", "Measured", "evaluate_rollouts"]
