"""Settings: every field is checked, the paper's recipe is as published, and the head gets the layers and gate."""

import dataclasses
import re

import pytest
import torch
from trained_heads import train_head

from hf_elhsr import ElhsrConfig
from hf_elhsr.rollouts import Rollout, RolloutSet
from hf_elhsr.training import PRESETS, RewardHeadTrainingArguments

RECORDED = ElhsrConfig(hidden_size=8, layers=[0, 2, 5])


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("loss", ["mse", None]),
        ("learning_rate", [0.0, -1.0, float("nan"), float("inf")]),
        ("weight_decay", [-0.1, float("nan")]),
        ("averaging", [-0.1, 1.0, float("nan")]),
        ("held_out", [0.0, 1.0, float("nan")]),
        ("prompts_per_batch", [0, 2.5, True]),
        ("max_epochs", [0, -3]),
        ("patience", [0, "3"]),
        ("prompts", [0, 1, 2.5, True]),
        ("seed", [1.5, None]),
        ("gate", ["yes"]),
        ("layers", [[], [-1], [0.5], [True]]),
        ("standardization", ["per_layer", True]),
    ],
)
def test_invalid_values_are_refused_by_name(field, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{field}={re.escape(repr(value))}: expected"):
            RewardHeadTrainingArguments(**{field: value})


def test_every_field_is_checked():
    """The list above names all fields."""
    [mark] = test_invalid_values_are_refused_by_name.pytestmark
    assert {field for field, _ in mark.args[1]} == {
        field.name for field in dataclasses.fields(RewardHeadTrainingArguments)
    }


def test_the_papers_recipe():
    paper = PRESETS["paper"]
    assert (paper.learning_rate, paper.weight_decay, paper.loss) == (1e-4, 1e-5, "binary_cross_entropy")
    assert (paper.max_epochs, paper.patience, paper.held_out) == (40, 3, 0.2)
    assert (paper.averaging, paper.standardization) == (0.0, None)
    assert paper.prompts_per_batch * 8 == 16
    assert PRESETS["default"] == RewardHeadTrainingArguments()


def test_heads_on_logits_have_a_gate_only_if_asked_for():
    recorded = ElhsrConfig(hidden_size=8, signal="logits", layers=[], base_vocab_size=64)
    assert recorded.gate
    assert not RewardHeadTrainingArguments.preset("default", "logits").head_config(recorded).gate
    assert (
        dataclasses.replace(RewardHeadTrainingArguments.preset("default", "logits"), gate=True)
        .head_config(recorded)
        .gate
    )
    assert RewardHeadTrainingArguments.preset("paper", "logits").head_config(recorded).gate


def test_the_heads_configuration():
    assert RewardHeadTrainingArguments().head_config(RECORDED).to_dict() == RECORDED.to_dict()
    config = RewardHeadTrainingArguments(layers=[5, 0, 5], gate=False).head_config(RECORDED)
    assert (config.layers, config.gate, config.num_features) == ([0, 5], False, 16)
    assert (RECORDED.layers, RECORDED.gate) == ([0, 2, 5], True)
    ungated = ElhsrConfig(hidden_size=8, layers=[0], gate=False)
    assert RewardHeadTrainingArguments().head_config(ungated).gate is False
    assert RewardHeadTrainingArguments(gate=True).head_config(ungated).gate is True


def test_layers_that_were_not_recorded():
    with pytest.raises(ValueError, match=r"layers \[1, 3\] were not recorded .* have \[0, 2, 5\]"):
        RewardHeadTrainingArguments(layers=[1, 2, 3]).head_config(RECORDED)
    logits = ElhsrConfig(signal="logits", base_vocab_size=9)
    with pytest.raises(ValueError, match="have logits and no layers"):
        RewardHeadTrainingArguments(layers=[1]).head_config(logits)


def test_the_default_is_adapted_to_the_signal_and_the_papers_recipe_is_not():
    assert RewardHeadTrainingArguments.preset("default", "hidden_states") == RewardHeadTrainingArguments()
    defaults = [
        RewardHeadTrainingArguments.preset("default", signal)
        for signal in ("hidden_states", "logits", "top_log_probabilities")
    ]
    assert len({settings.learning_rate for settings in defaults}) == 3
    for signal in ("hidden_states", "logits", "top_log_probabilities"):
        assert RewardHeadTrainingArguments.preset("paper", signal) == PRESETS["paper"]
    with pytest.raises(ValueError, match="preset='best': expected one of default, paper"):
        RewardHeadTrainingArguments.preset("best", "logits")


def test_training_without_settings_uses_the_default_of_the_signal(tmp_path):
    """Rollouts of log-probabilities: a step is 150 times longer than on hidden states."""
    rollouts = RolloutSet.create(
        tmp_path,
        {"task": "made", "split": "train", "prompts": 40},
        ElhsrConfig(signal="top_log_probabilities", num_log_probabilities=2, hidden_size=4, layers=[]),
    )
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(160, generator=generator) < 0.5
    rows = [Rollout(f"p{i // 4}", "t", [1], "", None, bool(label), -1.0, i) for i, label in enumerate(labels)]
    rollouts.write_shard(0, rows, torch.randn(160, 3, generator=generator) + labels[:, None])
    head, report = train_head(rollouts)
    same, same_report = train_head(rollouts, RewardHeadTrainingArguments.preset("default", "top_log_probabilities"))
    assert report == same_report
    assert torch.equal(head.weight, same.weight)
    _, other = train_head(rollouts, RewardHeadTrainingArguments.preset("default", "hidden_states"))
    assert min(report.held_out_loss) < min(other.held_out_loss)


def test_heads_on_distributions_have_more_patience():
    """Their held-out loss falls unevenly, so three epochs without a better one mean little."""
    patience = {
        signal: RewardHeadTrainingArguments.preset("default", signal).patience
        for signal in ("hidden_states", "logits", "top_log_probabilities")
    }
    assert patience == {"hidden_states": 3, "logits": 10, "top_log_probabilities": 10}
    assert RewardHeadTrainingArguments.preset("paper", "logits").patience == 3
