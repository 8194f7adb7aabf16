"""TrainingReport: what happens in training, epoch by epoch, and when it ends."""

import math
from dataclasses import dataclass, field

from .settings import RewardHeadTrainingArguments


@dataclass
class TrainingReport:
    """What happened in training.

    Args:
        train_prompts, held_out_prompts: How many of each; no prompt is in both.
        base_rate: Share of correct rollouts among the held-out ones.
        train_loss, held_out_loss: The loss of R per epoch, see `RewardHeadTrainingArguments.loss`; in training, the
            mean over batches, weighted by their rollouts.
        held_out_prefix_loss: The loss of V_t per epoch, mean over prefixes, in nats. It is empty if some tokens of the
            rollouts were left out for a disk budget, since the head then has no V_t.
        best_epoch, best_value_epoch: The epochs (from 0) whose weights were kept for R and for V_t: those with the
            lowest held-out losses.
        held_out_best_of_n: Accuracy of the head's winners on the held-out prompts, with the kept weights. Slightly
            optimistic, since these prompts selected the epoch.
    """

    train_prompts: int
    held_out_prompts: int
    base_rate: float
    train_loss: list[float] = field(default_factory=list)
    held_out_loss: list[float] = field(default_factory=list)
    held_out_prefix_loss: list[float] = field(default_factory=list)
    best_epoch: int = -1
    best_value_epoch: int = -1
    held_out_best_of_n: float = float("nan")


def best_epoch(held_out_loss: list[float]) -> int:
    """The first epoch, counted from 0, with the lowest loss; -1 while none was finite."""
    best = -1
    for epoch, loss in enumerate(held_out_loss):
        # Not `<=`: a loss that stays the same must not keep the training running
        if loss < (math.inf if best < 0 else held_out_loss[best]):
            best = epoch
    return best


def has_ended(held_out_loss: list[float], args: RewardHeadTrainingArguments) -> bool:
    """Whether training stops after the epochs with these losses."""
    epochs = len(held_out_loss)
    return epochs >= args.max_epochs or (epochs > 0 and epochs - 1 - best_epoch(held_out_loss) >= args.patience)


def went_too_far(held_out_loss: list[float], args: RewardHeadTrainingArguments) -> bool:
    """Whether a training with these arguments would have stopped before the last of these epochs."""
    return any(has_ended(held_out_loss[:epochs], args) for epochs in range(len(held_out_loss)))
