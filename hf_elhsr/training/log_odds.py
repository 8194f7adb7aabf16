"""Rewards as log-odds of P(correct): where training starts, and what it ends with whatever the loss."""

import math

import numpy as np
import torch
from transformers.utils import logging

from ..decisions.fit import fit_line
from ..head.modeling_elhsr import ElhsrRewardHead

logger = logging.get_logger(__name__)


@torch.no_grad()
def start_at_base_rate(head: ElhsrRewardHead, loss: str, labels: list[list[bool]]) -> None:
    """The biases of what learns by cross-entropy become the log-odds of the labels; weights are 0 before training.

    From 0 a bias would not get there in the steps of a few epochs. The weights would, along directions in which all
    tokens are alike, and with few prompts the held-out loss could rise before they can tell right from wrong.

    Args:
        loss: Of R, a name in [`LOSSES`]; those other than cross-entropy have no use for a base rate.
        labels: Of the training rollouts by prompt, of both classes.
    """
    right = [float(label) for own in labels for label in own]
    log_odds = math.log(sum(right)) - math.log(len(right) - sum(right))
    if loss == "binary_cross_entropy":
        head.transform("reward", 1.0, log_odds)
    if head.config.value:
        head.transform("value", 1.0, log_odds)


@torch.no_grad()
def make_log_odds(head: ElhsrRewardHead, rewards: torch.Tensor, labels: list[bool]) -> None:
    """R becomes a R + b: since it is a weighted mean of r_t, the row of r_t alone is changed.

    Args:
        rewards: (rollouts,) of held-out prompts, by this head.
        labels: Theirs.
    """
    try:
        line = fit_line(rewards.double().numpy(), np.array(labels))
    except ValueError as error:
        logger.warning(f"sigmoid(R) of this head estimates no probability. {error}")
        return
    head.transform("reward", line.slope, line.offset)
