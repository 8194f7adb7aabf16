"""Columns of layers: those of a concatenation of the layers, in as few slices as there are runs of neighbours."""

import itertools

import pytest
import torch

from hf_elhsr import ElhsrConfig

LAYERS = [0, 3, 4, 9]


def config(layers, **kwargs):
    return ElhsrConfig(**{"hidden_size": 5, "layers": layers, **kwargs})


def test_every_subset():
    states = {layer: torch.randn(7, 5) for layer in LAYERS}
    recorded = torch.cat([states[layer] for layer in LAYERS], dim=1)
    for count in range(1, 5):
        for wanted in itertools.combinations(LAYERS, count):
            columns = config(list(wanted)).columns_in(config(LAYERS))
            actual = torch.cat([recorded[:, part] for part in columns], dim=1)
            assert torch.equal(actual, torch.cat([states[layer] for layer in wanted], dim=1))
    assert config([0, 3, 9]).columns_in(config(LAYERS)) == [slice(0, 10), slice(15, 20)]
    assert config(LAYERS).columns_in(config(LAYERS)) == [slice(0, 20)]


@pytest.mark.parametrize("what", ["fingerprint", "adapter"])
def test_a_different_model_of_the_same_shape(what):
    parts = {"late_weight_name": "a.b"} if what == "fingerprint" else {}
    own = {what: {**parts, "x": [1.0, -2.0], "y": [0.5]}}
    rounded = {what: {**parts, "x": [1.1, -2.0], "y": [0.52]}}
    assert config(LAYERS, **own).columns_in(config(LAYERS, **rounded)) == [slice(0, 20)]
    for other in ({"x": [1.0, 2.0], "y": [0.5]}, {"x": [1.0, -2.0], "y": [0.5, 0.0]}, {"x": [1.0, -2.0]}):
        with pytest.raises(ValueError, match=rf"trained for org/a cannot be applied .* of org/b: their {what}s differ"):
            config(LAYERS, **own, base_model="org/a").columns_in(
                config(LAYERS, **{what: parts | other}, base_model="org/b")
            )
    # Without a fingerprint the model is unknown; a missing adapter means the bare model
    if what == "adapter":
        with pytest.raises(ValueError, match="adapters differ"):
            config(LAYERS, **own).columns_in(config(LAYERS))
    else:
        assert config(LAYERS, **own).columns_in(config(LAYERS)) == [slice(0, 20)]
    assert config(LAYERS).columns_in(config(LAYERS, **own)) == [slice(0, 20)]


def test_features_that_were_not_recorded():
    logits = ElhsrConfig(signal="logits", base_vocab_size=20)
    assert logits.columns_in(logits) == [slice(0, 20)]
    for other in (config([0, 1]), config(LAYERS, hidden_size=4), logits):
        with pytest.raises(ValueError, match="cannot be applied to recorded features of hidden states"):
            other.columns_in(config(LAYERS))
