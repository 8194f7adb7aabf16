"""Training: from rollouts with labels and features to a head."""

from .losses import LOSSES, binary_cross_entropy
from .probe import train_last_token_probe
from .refit import RefitReport, refit_head
from .settings import PRESETS, RewardHeadTrainingArguments, preset
from .trainer import TrainingReport, train_head

__all__ = [
    "LOSSES",
    "PRESETS",
    "RefitReport",
    "RewardHeadTrainingArguments",
    "TrainingReport",
    "binary_cross_entropy",
    "preset",
    "refit_head",
    "train_head",
    "train_last_token_probe",
]
