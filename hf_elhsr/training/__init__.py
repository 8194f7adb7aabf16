"""Training: from rollouts with labels and features to a head."""

from .decisions import fit_decisions
from .losses import LOSSES, binary_cross_entropy
from .refit import RefitReport, refit_head
from .trainer import TrainingReport, TrainingSettings, train_head

__all__ = [
    "LOSSES",
    "RefitReport",
    "TrainingReport",
    "TrainingSettings",
    "binary_cross_entropy",
    "fit_decisions",
    "refit_head",
    "train_head",
]
