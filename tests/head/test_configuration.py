"""A head knows its model: shape, depth, vocabulary and a fingerprint of the weights."""

import copy
import json
import logging

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from hf_elhsr import ElhsrConfig, ElhsrRewardHead
from hf_elhsr.head import configuration_elhsr
from hf_elhsr.head.base_model import model_fingerprint
from hf_elhsr.head.configuration_elhsr import FORMAT_VERSION
from tiny_models import CONFIGS, tiny_model


@pytest.mark.parametrize("architecture", CONFIGS)
def test_for_model_takes_all_layers(architecture):
    model = tiny_model(architecture)
    config = ElhsrConfig.for_model(model)
    states = model(input_ids=torch.tensor([[5, 6]]), output_hidden_states=True).hidden_states
    assert config.layers == list(range(len(states)))
    assert config.hidden_size == 32
    assert config.num_features == 32 * len(states)
    assert config.gate
    assert config.base_model_type == model.config.model_type
    config.check_fits(model)


def test_layers_are_sorted_counted_from_the_end_and_checked():
    model = tiny_model()
    assert ElhsrConfig.for_model(model, layers=[-1, 1, 1]).layers == [1, 3]
    for layers in ([4], [-5], []):
        with pytest.raises(ValueError, match="returns 4 hidden states"):
            ElhsrConfig.for_model(model, layers=layers)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_same_weights_in_other_precisions_are_accepted(architecture):
    model = tiny_model(architecture)
    config = ElhsrConfig.for_model(model)
    for dtype in (torch.bfloat16, torch.float16):
        config.check_fits(tiny_model(architecture).to(dtype))
    ElhsrConfig.for_model(tiny_model(architecture).bfloat16()).check_fits(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(four_bits(parameter))
    config.check_fits(model)


def four_bits(weight: torch.Tensor) -> torch.Tensor:
    """Rounded as a Q4_1 GGUF rounds: blocks of 32 on 16 levels between their minimum and maximum."""
    flat = weight.reshape(-1)
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % 32), value=float(flat[-1])).view(-1, 32)
    low, high = padded.amin(1, keepdim=True), padded.amax(1, keepdim=True)
    step = ((high - low) / 15).clamp_min(1e-12)
    return (((padded - low) / step).round() * step + low).reshape(-1)[: len(flat)].view_as(weight)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_different_model_of_the_same_shape_is_refused(architecture):
    config = ElhsrConfig.for_model(tiny_model(architecture), base_model="org/first")
    other = tiny_model(architecture, seed=1)
    with pytest.raises(ValueError, match=r"embedding weights .* late_weight weights"):
        config.check_fits(other)


@pytest.mark.parametrize("part", ["embedding", "late weight"])
def test_either_part_of_the_fingerprint_is_enough(part):
    config = ElhsrConfig.for_model(tiny_model())
    model, other = tiny_model(), tiny_model(seed=1)
    source = other.model.embed_tokens if part == "embedding" else other.model.layers[-1].mlp.down_proj
    target = model.model.embed_tokens if part == "embedding" else model.model.layers[-1].mlp.down_proj
    target.load_state_dict(source.state_dict())
    with pytest.raises(ValueError, match=f"{part.replace(' ', '_')} weights that are"):
        config.check_fits(model)


def test_nan_weights_are_refused():
    config = ElhsrConfig.for_model(tiny_model())
    model = tiny_model()
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="embedding weights"):
        config.check_fits(model)


def test_paths_and_ids_are_never_compared(tmp_path):
    model = tiny_model()
    config = ElhsrConfig.for_model(model, base_model="org/name", base_model_revision="123")
    assert (config.base_model, config.base_model_revision) == ("org/name", "123")
    model.save_pretrained(tmp_path)
    config.check_fits(AutoModelForCausalLM.from_pretrained(tmp_path))


def test_a_fingerprint_survives_saving(tmp_path):
    model = tiny_model("gpt2")
    config = ElhsrConfig.for_model(model)
    ElhsrRewardHead(config).save_pretrained(tmp_path)
    loaded = ElhsrConfig.from_pretrained(tmp_path)
    assert loaded.fingerprint == config.fingerprint
    loaded.check_fits(model)


def test_offloaded_weights_are_not_compared_and_a_warning_says_so(caplog):
    config = ElhsrConfig.for_model(tiny_model())
    transformers_logging.warning_once.cache_clear()
    transformers_logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        config.check_fits(tiny_model(seed=1).to("meta"))
    transformers_logging.disable_propagation()
    assert "embedding weights are packed or offloaded" in caplog.text
    offloaded = tiny_model().to("meta")
    with pytest.raises(ValueError, match="no fingerprint can be taken"):
        model_fingerprint(offloaded)


def test_the_4_bit_and_bfloat16_versions_of_smollm2_agree(smollm2, smollm2_folder):
    model, _ = smollm2
    config = ElhsrConfig.for_model(model)
    config.check_fits(AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.bfloat16))
    assert config.num_features == 17_856


@pytest.mark.parametrize(
    "change",
    [{}, {"late_weight_name": "device"}, {"late_weight_name": 3}, {"embedding": None}, {"embedding": ["x"]}],
    ids=str,
)
def test_a_damaged_fingerprint_is_a_clear_error(change):
    model = tiny_model()
    config = ElhsrConfig.for_model(model)
    config.fingerprint = {**config.fingerprint, **change} if change else {}
    with pytest.raises(ValueError, match=r"fingerprint in the head's config.json is damaged|late_weight"):
        config.check_fits(model)


def test_default_device_does_not_matter():
    model = tiny_model()
    config = ElhsrConfig.for_model(model)
    with torch.device("meta"):
        config.check_fits(model)


DECISIONS = {
    "calibration": {"slope": 1.0, "offset": 0.0, "winner": {"slope": 0.9, "offset": -0.1}, "n": 8, "prompts": 400},
    "pruning": {
        "interval": 4,
        "prefix": [[0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.5, 0.6]],
        "final": [0.0, 1.0],
        "value": [[0.0, 1.0, -1.0, 0.0, 0.0]] * 2,
        "prices": {"0.01": 0.005},
        "n": 8,
        "prompts": 400,
    },
    "adaptive": {"wave": 2, "thresholds": {"0.01": 0.5}, "prices": {"0.01": 0.002}, "n": 8, "prompts": 400},
}


def test_decisions_are_absent_unless_fitted():
    config = ElhsrConfig(hidden_size=2, layers=[0])
    assert all(getattr(config, name) is None for name in DECISIONS)
    config = ElhsrConfig(hidden_size=2, layers=[0], **DECISIONS)
    assert json.loads(config.to_json_string())["pruning"] == DECISIONS["pruning"]
    assert all(copy.deepcopy(config).to_dict()[name] == config.to_dict()[name] for name in DECISIONS)


def test_a_table_of_an_incorrect_width_is_refused_when_loaded(tmp_path):
    """A head with values has four features of a prefix, one without has three: a row is an intercept more."""
    ElhsrConfig(hidden_size=2, layers=[0], **DECISIONS).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"value": True}))
    with pytest.raises(ValueError, match=r"damaged pruning: prefix must have rows of 5 numbers.* got 4"):
        ElhsrConfig.from_pretrained(tmp_path)
    config = ElhsrConfig(hidden_size=2, layers=[0], value=True)
    with pytest.raises(ValueError, match="damaged pruning: prefix must have rows of 5"):
        config.pruning = DECISIONS["pruning"]


def test_heads_of_0_1_are_migrated(tmp_path):
    """They have neither a format nor a type of head."""
    config = ElhsrConfig(hidden_size=2, layers=[0], **DECISIONS)
    config.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    saved = json.loads(file.read_text())
    file.write_text(json.dumps({name: saved[name] for name in saved.keys() - {"format_version", "head_type"}}))
    loaded = ElhsrConfig.from_pretrained(tmp_path)
    assert (loaded.format_version, loaded.head_type) == (FORMAT_VERSION, "gated_linear")
    assert loaded.pruning == config.pruning


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, "2", -1, None, True, 0.5])
def test_unknown_formats_are_refused(tmp_path, version):
    ElhsrConfig(hidden_size=2, layers=[0]).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": version}))
    with pytest.raises(ValueError, match=r"format_version .*: update hf_elhsr, or train the head again"):
        ElhsrConfig.from_pretrained(tmp_path)


def test_every_step_of_a_migration_is_taken(monkeypatch):
    monkeypatch.setattr(configuration_elhsr, "FORMAT_VERSION", 3)
    steps = {0: 1, 1: 2, 2: 3}
    for version, added in steps.items():
        monkeypatch.setitem(configuration_elhsr.MIGRATIONS, version, lambda config, added=added: config | {added: True})
    assert configuration_elhsr.migrated({"format_version": 1}) == {"format_version": 3, 2: True, 3: True}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("calibration", {"slope": 0}, "slope must be a number above 0, got 0"),
        ("calibration", {"offset": float("nan")}, "offset must be a number"),
        ("calibration", {"temperature": 1.0}, "expected exactly slope, offset, winner"),
        ("calibration", {"winner": {"slope": -1.0, "offset": 0.0}}, "winner must be a slope above 0"),
        ("pruning", {"interval": 0}, "interval must be a count"),
        ("pruning", {"interval": True}, "interval must be a count"),
        ("pruning", {"prefix": [[0.1, 0.2], [0.3]]}, "prefix must be rows"),
        ("pruning", {"prefix": [[0.1, 0.2]]}, "prefix and value must each have one row per check, got 1 and 2"),
        ("pruning", {"value": [[0.0, float("inf"), 1.0, 0.0, 0.0]] * 2}, "value must be rows of five numbers"),
        ("pruning", {"prices": {"1%": 0.1}}, "prices must be a table"),
        ("pruning", {"prices": {}}, "prices must be a table"),
        ("adaptive", {"thresholds": {"0.01": 1.5}}, "thresholds must be a table"),
        ("adaptive", {"wave": 2.5}, "wave must be a count"),
        ("adaptive", {"prices": {"0.02": 0.002}}, "thresholds and prices must have the same tolerances"),
    ],
)
def test_damaged_decisions_are_refused(name, change, message):
    with pytest.raises(ValueError, match=f"damaged {name}: {message}"):
        ElhsrConfig(hidden_size=2, layers=[0], **{name: DECISIONS[name] | change})
    with pytest.raises(ValueError, match=f"damaged {name}: expected exactly"):
        ElhsrConfig(hidden_size=2, layers=[0], **{name: [1]})
