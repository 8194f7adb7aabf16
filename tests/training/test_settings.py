"""Settings: every field is checked, the paper's recipe is what it says, the head gets the layers and gate wanted."""

import dataclasses
import re

import pytest

from hf_elhsr import ElhsrConfig
from hf_elhsr.training import PRESETS, TrainingSettings

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
def test_values_that_make_no_sense_are_refused_by_name(field, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{field}={re.escape(repr(value))}: expected"):
            TrainingSettings(**{field: value})


def test_every_field_is_checked():
    """The list above has all of them."""
    [mark] = test_values_that_make_no_sense_are_refused_by_name.pytestmark
    assert {field for field, _ in mark.args[1]} == {field.name for field in dataclasses.fields(TrainingSettings)}


def test_the_papers_recipe():
    paper = PRESETS["paper"]
    assert (paper.learning_rate, paper.weight_decay, paper.loss) == (1e-4, 1e-5, "binary_cross_entropy")
    assert (paper.max_epochs, paper.patience, paper.held_out) == (40, 3, 0.2)
    assert (paper.averaging, paper.standardization) == (0.0, None)
    assert paper.prompts_per_batch * 8 == 16
    assert PRESETS["default"] == TrainingSettings()


def test_the_heads_configuration():
    assert TrainingSettings().head_config(RECORDED).to_dict() == RECORDED.to_dict()
    config = TrainingSettings(layers=[5, 0, 5], gate=False).head_config(RECORDED)
    assert (config.layers, config.gate, config.num_features) == ([0, 5], False, 16)
    assert (RECORDED.layers, RECORDED.gate) == ([0, 2, 5], True)
    ungated = ElhsrConfig(hidden_size=8, layers=[0], gate=False)
    assert TrainingSettings().head_config(ungated).gate is False
    assert TrainingSettings(gate=True).head_config(ungated).gate is True


def test_layers_that_were_not_recorded():
    with pytest.raises(ValueError, match=r"layers \[1, 3\] were not recorded .* have \[0, 2, 5\]"):
        TrainingSettings(layers=[1, 2, 3]).head_config(RECORDED)
    logits = ElhsrConfig(signal="logits", base_vocab_size=9)
    with pytest.raises(ValueError, match="have logits and no layers"):
        TrainingSettings(layers=[1]).head_config(logits)
