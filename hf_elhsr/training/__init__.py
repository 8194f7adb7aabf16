"""Training: from rollouts with labels and features to a head."""

from .decisions import fit_decisions
from .losses import LOSSES, binary_cross_entropy
from .refit import RefitReport, refit_head
from .settings import PRESETS, TrainingSettings
from .trainer import TrainingReport, train_head

__all__ = [
    "LOSSES",
    "PRESETS",
    "RefitReport",
    "TrainingReport",
    "TrainingSettings",
    "binary_cross_entropy",
    "fit_decisions",
    "refit_head",
    "train_head",
]
