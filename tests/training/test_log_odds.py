"""Where training starts: rows that learn by cross-entropy predict the base rate before anything else."""

import dataclasses
import math

import pytest
import torch
from planted_rollouts import planted_rollouts
from trained_heads import train_head

from hf_elhsr import ElhsrConfig, ElhsrRewardHead
from hf_elhsr.training import LOSSES, RewardHeadTrainingArguments
from hf_elhsr.training.data import PromptGroups
from hf_elhsr.training.trainer import start_at_base_rate

# Steps so small that nothing is learned
STILL = RewardHeadTrainingArguments(learning_rate=1e-12, max_epochs=1)


def base_rate(rollouts):
    groups = PromptGroups(rollouts)
    train, _ = groups.split(STILL.held_out, STILL.seed)
    labels = [label for own in groups.labels(train) for label in own]
    return sum(labels) / len(labels)


def test_cross_entropy_starts_at_the_base_rate(tmp_path):
    rollouts = planted_rollouts(tmp_path, longest=20)
    head, _ = train_head(rollouts, STILL)
    expected = base_rate(rollouts)
    assert 0.2 < expected < 0.4
    assert torch.sigmoid(head.bias[1]).item() == pytest.approx(expected, abs=1e-5)
    assert torch.sigmoid(head.value_bias).item() == pytest.approx(expected, abs=1e-5)
    assert head.bias[0].item() == pytest.approx(0.0, abs=1e-5)


def test_a_head_without_a_gate_starts_there_too(tmp_path):
    rollouts = planted_rollouts(tmp_path)
    head, _ = train_head(rollouts, dataclasses.replace(STILL, gate=False))
    assert torch.sigmoid(head.bias[0]).item() == pytest.approx(base_rate(rollouts), abs=1e-5)


def test_the_held_out_loss_never_begins_above_that_of_the_base_rate(tmp_path):
    """From zero it would begin at log 2, and could stop early before it beats the base rate."""
    rollouts = planted_rollouts(tmp_path, signal=1.0)
    _, report = train_head(rollouts, RewardHeadTrainingArguments(learning_rate=1e-4, max_epochs=2))
    groups = PromptGroups(rollouts)
    _, held_out = groups.split(STILL.held_out, STILL.seed)
    labels = torch.tensor([float(label) for own in groups.labels(held_out) for label in own])
    constant = torch.full_like(labels, base_rate(rollouts))
    assert max(report.held_out_loss) < torch.nn.functional.binary_cross_entropy(constant, labels)


@pytest.mark.parametrize("loss", [name for name, loss in LOSSES.items() if not loss.log_odds])
def test_other_losses_start_from_zero(loss):
    """Their rewards are not log-odds; V_t learns by cross-entropy with any loss."""
    head = ElhsrRewardHead(ElhsrConfig(hidden_size=2, layers=[0], value=True))
    start_at_base_rate(head, LOSSES[loss].log_odds, [[True, False], [False, False]])
    assert head.bias.tolist() == [0.0, 0.0]
    assert head.value_bias.item() == pytest.approx(-math.log(3))
