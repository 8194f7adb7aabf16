"""The head itself: its equations against float64 NumPy, saving and loading, dtypes, registration."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, LlamaConfig

from hf_elhsr import ElhsrConfig, ElhsrRewardHead
from hf_elhsr.head.token_outputs import linear
from oracle import assert_rewards_close, oracle_reward


def random_head(gate=True, layers=(0, 2), hidden_size=5, seed=0):
    head = ElhsrRewardHead(ElhsrConfig(hidden_size=hidden_size, layers=list(layers), gate=gate))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator))
        head.bias.copy_(torch.randn(head.bias.shape, generator=generator))
    return head


def expected(head, features, mask):
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
    return [oracle_reward(f[m.astype(bool)], weight, bias) for f, m in zip(features, mask, strict=True)]


@pytest.mark.parametrize("gate", [True, False])
def test_forward_is_the_equation(gate):
    head = random_head(gate)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4, 7, 10)).astype(np.float32)
    mask = rng.integers(0, 2, size=(4, 7))
    mask[:, 3] = 1
    out = head(torch.from_numpy(features), torch.from_numpy(mask))
    assert_rewards_close(out.rewards.detach(), expected(head, features, mask), tolerance=1e-5)
    assert (out.token_rewards[mask == 0] == 0).all()
    assert (out.token_gates[mask == 0] == 0).all()
    if not gate:
        assert (out.token_gates[mask == 1] == 1).all()
    # layers apart, as the model returns them, are the same thing
    apart = head([torch.from_numpy(features[..., :5]), torch.from_numpy(features[..., 5:])], torch.from_numpy(mask))
    assert torch.equal(apart.rewards, out.rewards)


def test_worked_by_hand():
    head = ElhsrRewardHead(ElhsrConfig(hidden_size=1, layers=[0]))
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0], [2.0]]))
        head.bias.copy_(torch.tensor([0.0, 1.0]))
    # h = 0: gate 1/2, reward 1; h = ln 3: gate 3/4, reward 2 ln 3 + 1
    out = head(torch.tensor([[[0.0], [float(np.log(3))]]]), torch.ones(1, 2), labels=torch.tensor([1.0]))
    reward = (0.5 * 1 + 0.75 * (2 * np.log(3) + 1)) / 1.25
    assert out.rewards.item() == pytest.approx(reward, rel=1e-6)
    assert out.loss.item() == pytest.approx(np.log1p(np.exp(-reward)), rel=1e-6)


def test_the_number_of_parameters_is_the_papers():
    head = ElhsrRewardHead(ElhsrConfig(hidden_size=576, layers=list(range(31))))
    assert sum(parameter.numel() for parameter in head.parameters()) == 35_714


def test_gates_that_all_vanish_give_a_finite_reward():
    head = random_head()
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([-200.0, 3.0]))
    assert torch.isfinite(head(torch.randn(1, 4, 10), torch.ones(1, 4)).rewards).all()


def test_values_at_padding_do_not_matter():
    head = random_head()
    features, mask = torch.randn(2, 4, 10), torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]])
    clean = head(features, mask).rewards
    features[0, 2:] = float("nan")
    features[1, 0] = float("inf")
    assert torch.equal(head(features, mask).rewards, clean)


@pytest.mark.parametrize(
    ("features", "mask", "message"),
    [
        (torch.zeros(2, 3, 9), torch.ones(2, 3), "3, 9"),
        (torch.zeros(2, 3, 10), torch.ones(2, 4), "2, 4"),
        (torch.zeros(2, 3, 10), torch.tensor([[1, 1, 1], [0, 0, 0]]), "at least one sampled token"),
    ],
)
def test_bad_shapes(features, mask, message):
    with pytest.raises(ValueError, match=message):
        random_head()(features, mask)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"hidden_size": 4},
        {"hidden_size": 4, "layers": [1, 0]},
        {"hidden_size": 4, "layers": [-1, 2]},
        {"hidden_size": 4, "layers": [0.0, 1.0]},
        {"hidden_size": 4, "layers": ["a"]},
        {"hidden_size": 4.0, "layers": [1]},
    ],
    ids=str,
)
def test_configurations_that_do_not_describe_a_head(config):
    with pytest.raises(ValueError, match="do not describe a reward head"):
        ElhsrRewardHead(ElhsrConfig(**config))
    with pytest.raises(ValueError, match="Unknown signal 'smell'"):
        ElhsrRewardHead(ElhsrConfig(hidden_size=4, layers=[0], signal="smell"))


def test_save_and_load_is_exact(tmp_path):
    head = random_head(gate=False)
    head.config.base_model, head.config.base_model_revision = "org/model", "abc"
    head.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    for loaded in (ElhsrRewardHead.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded) is ElhsrRewardHead
        assert torch.equal(loaded.weight, head.weight)
        assert torch.equal(loaded.bias, head.bias)
        elsewhere = {"_name_or_path": "", "transformers_version": ""}
        assert loaded.config.to_dict() | elsewhere == head.config.to_dict() | elsewhere
    assert type(AutoConfig.from_pretrained(tmp_path)) is ElhsrConfig
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["ElhsrRewardHead"]


def test_another_kind_of_configuration_is_refused(tmp_path):
    random_head().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must be an ElhsrConfig, got LlamaConfig"):
        ElhsrRewardHead.from_pretrained(tmp_path, config=LlamaConfig())


def test_an_adapter_in_a_heads_folder_is_ignored(tmp_path):
    head = random_head()
    head.save_pretrained(tmp_path)
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    (tmp_path / "adapter_model.bin").write_bytes(b"a pickle")
    for loaded in (ElhsrRewardHead.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert torch.equal(loaded.weight, head.weight)
        assert loaded.config.name_or_path == loaded.name_or_path == str(tmp_path)


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_a_device_map_and_loading_info(tmp_path, device_map):
    head = random_head()
    head.save_pretrained(tmp_path)
    loaded, info = ElhsrRewardHead.from_pretrained(tmp_path, device_map=device_map, output_loading_info=True)
    assert torch.equal(loaded.weight, head.weight)
    assert loaded.weight.requires_grad
    assert not any(info.values())


@pytest.mark.parametrize("name", ["gguf_file", "state_dict", "variant"])
def test_other_weights_than_its_own_are_refused(tmp_path, name):
    random_head().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"always those of its model.safetensors: leave out {name}"):
        ElhsrRewardHead.from_pretrained(tmp_path, **{name: {}})
    ElhsrRewardHead.from_pretrained(tmp_path, **{name: None})


def test_a_loaded_head_does_not_change_with_its_file(tmp_path):
    head = random_head()
    head.save_pretrained(tmp_path)
    loaded = ElhsrRewardHead.from_pretrained(tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-40, 2)
        file.write(bytes(40))
    assert torch.equal(loaded.weight, head.weight)


def test_parameters_stay_float32(tmp_path):
    head = random_head()
    before = head.weight.clone()
    head.save_pretrained(tmp_path)
    for loaded in (
        ElhsrRewardHead.from_pretrained(tmp_path, dtype=torch.bfloat16),
        AutoModel.from_pretrained(tmp_path, dtype="bfloat16"),
        head.half(),
        head.to(torch.bfloat16),
        torch.nn.Sequential(head).double()[0],
    ):
        assert loaded.weight.dtype == torch.float32
        assert torch.equal(loaded.weight, before)
    assert head.to("meta").weight.device.type == "meta"


def test_features_in_bfloat16_are_computed_in_float32():
    head = random_head()
    features, mask = torch.randn(1, 6, 10).bfloat16(), torch.ones(1, 6)
    assert torch.equal(head(features, mask).rewards, head(features.float(), mask).rewards)


def test_folded_standardisation_gives_the_same_rewards():
    head = random_head()
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 6, 10, generator=generator) * 50 + 300
    mean, std = features.mean((0, 1)), features.std((0, 1))
    standardised = head((features - mean) / std, torch.ones(3, 6)).rewards
    head.fold_standardization(mean, std)
    assert head.config.standardization == "per_feature"
    assert_rewards_close(head(features, torch.ones(3, 6)).rewards.detach(), standardised.detach(), tolerance=1e-5)


@pytest.mark.parametrize("eps", [0, 0.0, -1.0, None, float("nan"), "x"])
def test_a_bad_eps_is_refused(eps):
    with pytest.raises(ValueError, match="small positive number"):
        ElhsrRewardHead(ElhsrConfig(hidden_size=4, layers=[0], eps=eps))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("tokens", [0, 1, 33, 70])
def test_half_precision_features_of_any_length_are_exact(dtype, tokens):
    """As many numbers as are read in several blocks, each copied in several pieces, the last ones shorter."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(tokens, 17_856, generator=generator).to(dtype)
    weight, bias = torch.randn(3, 17_856, generator=generator), torch.randn(3, generator=generator)
    expected = features.double().numpy() @ weight.double().numpy().T + bias.double().numpy()
    actual = linear(features, weight, bias)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.numpy(), expected, atol=2e-3)
    # Rows that lie apart, as layers chosen of those recorded do
    apart = torch.cat([features, features], dim=1)[:, :17_856]
    assert torch.equal(linear(apart, weight, bias), actual)


def test_autocast_does_not_reduce_precision():
    head, features = random_head(), torch.randn(2, 5, 10)
    expected = head(features, torch.ones(2, 5)).rewards
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(features, torch.ones(2, 5)).rewards, expected)
