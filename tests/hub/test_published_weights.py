"""A head converted from the published code's weights gives the rewards that the published formula gives."""

import os
import pickle

import numpy as np
import pytest
import torch

from hf_elhsr import ElhsrConfig, ElhsrRewardHead
from hf_elhsr.hub import convert_published
from tiny_models import tiny_model


@pytest.fixture(scope="module")
def config():
    return ElhsrConfig.for_model(tiny_model())


def published(folder, width, gate=True, prefix="", seed=0):
    """A state dict as torch.nn.Linear has it, under the published model's names."""
    torch.manual_seed(seed)
    layer = torch.nn.Linear(width, 2 if gate else 1)
    name = "fused_layer" if gate else "reward_layer"
    state = {f"{prefix}{name}.{key}": value for key, value in layer.state_dict().items()}
    torch.save(state, folder / "reward_model.pt")
    return folder / "reward_model.pt", layer


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("gate", [True, False])
def test_rewards_are_those_of_the_published_formula(config, tmp_path, gate, prefix):
    file, layer = published(tmp_path, config.num_features, gate, prefix)
    head = convert_published(file, config)
    head.save_pretrained(tmp_path / "head")
    head = ElhsrRewardHead.from_pretrained(tmp_path / "head")
    rng = np.random.default_rng(0)
    features, lengths = rng.normal(size=(3, 7, config.num_features)), [7, 1, 4]
    mask = np.arange(7) < np.array(lengths)[:, None]
    outputs = features @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
    gates = (1 / (1 + np.exp(-outputs[..., 0])) if gate else np.ones((3, 7))) * mask
    expected = (gates * outputs[..., -1]).sum(1) / gates.sum(1)
    rewards = head(torch.tensor(features), torch.tensor(mask)).rewards
    np.testing.assert_allclose(rewards.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert head.config.gate == gate
    assert head.config.layers == config.layers
    assert head.config.fingerprint == config.fingerprint


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_the_file_does_not_run(config, tmp_path):
    file = tmp_path / "evil.pt"
    torch.save({"fused_layer.weight": Malicious(tmp_path / "owned")}, file)
    with pytest.raises(ValueError, match="no code in it was run"):
        convert_published(file, config)
    file.write_bytes(pickle.dumps(Malicious(tmp_path / "owned")))
    with pytest.raises(ValueError, match="no code in it was run"):
        convert_published(file, config)
    assert not (tmp_path / "owned").exists()


def test_files_that_cannot_be_converted(config, tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        convert_published(tmp_path / "nothing.pt", config)
    file, _ = published(tmp_path, config.num_features + 1)
    with pytest.raises(ValueError, match="pass the model and the layers"):
        convert_published(file, config)
    torch.save({"proj.weight": torch.ones(2, 2)}, file)
    with pytest.raises(ValueError, match=r"holds \['proj.weight'\]"):
        convert_published(file, config)
    torch.save([1, 2], file)
    with pytest.raises(ValueError, match="holds list"):
        convert_published(file, config)
    file, layer = published(tmp_path, config.num_features)
    spoiled = {"fused_layer.weight": layer.weight.detach() * float("nan"), "fused_layer.bias": layer.bias.detach()}
    torch.save(spoiled, file)
    with pytest.raises(ValueError, match="NaN or infinity"):
        convert_published(file, config)
    file.write_bytes(b"half a file")
    with pytest.raises(ValueError, match="not a plain file of weights"):
        convert_published(file, config)
