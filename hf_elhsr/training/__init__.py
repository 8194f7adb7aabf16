"""Training: from rollouts with labels and features to a head."""

from .data import PromptGroups
from .losses import LOSSES, Loss, binary_cross_entropy
from .probe import train_last_token_probe
from .refit import RefitReport, refit_head
from .settings import PRESETS, RewardHeadTrainingArguments
from .trainer import RewardHeadTrainer, TrainingReport

__all__ = [
    "LOSSES",
    "PRESETS",
    "Loss",
    "PromptGroups",
    "RefitReport",
    "RewardHeadTrainer",
    "RewardHeadTrainingArguments",
    "TrainingReport",
    "binary_cross_entropy",
    "refit_head",
    "train_last_token_probe",
]
