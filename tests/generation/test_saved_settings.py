"""best_of_n in a generation config, passed or saved with the model, applies unless the call differs."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from hf_elhsr import disable_best_of_n, enable_best_of_n
from tiny_models import tiny_head, tiny_model


@pytest.fixture
def head_folder(head, tmp_path):
    head.save_pretrained(tmp_path / "head")
    return str(tmp_path / "head")


def generate(model, inputs, **kwargs):
    torch.manual_seed(0)
    return model.generate(**inputs, max_new_tokens=5, return_dict_in_generate=True, **kwargs)


def test_the_models_own_config(model, head, head_folder, inputs):
    expected = generate(model, inputs, best_of_n=3, reward_head=head)
    model.generation_config.best_of_n = 3
    model.generation_config.reward_head = head_folder
    before = model.generation_config.to_dict()
    out = generate(model, inputs)
    assert torch.equal(out.candidates, expected.candidates)
    assert torch.equal(out.rewards, expected.rewards)
    assert model.generation_config.to_dict() == before


def test_the_call_beats_the_config_passed_which_beats_the_models(model, head, head_folder, inputs):
    model.generation_config.best_of_n = 2
    model.generation_config.reward_head = "org/of-the-model"
    passed = GenerationConfig(
        best_of_n=3, reward_head=head_folder, max_new_tokens=5, return_dict_in_generate=True, pad_token_id=0
    )
    # As in transformers, by name or by position
    assert model.generate(**inputs, generation_config=passed).rewards.shape == (3, 3)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert model.generate(ids, passed, attention_mask=mask).rewards.shape == (3, 3)
    assert model.generate(**inputs, generation_config=passed, best_of_n=4).rewards.shape == (3, 4)
    assert generate(model, inputs, reward_head=head).rewards.shape == (3, 2)
    passed.best_of_n = None
    assert model.generate(**inputs, generation_config=passed).rewards.shape == (3, 2)


def test_other_settings_that_json_can_hold(model, head, head_folder, inputs):
    model.generation_config.output_token_rewards = True
    model.generation_config.max_parallel = 2
    kwargs = {"best_of_n": 3, "reward_head": head}
    out = generate(model, inputs, **kwargs)
    assert out.token_rewards is not None
    assert generate(model, inputs, **kwargs, output_token_rewards=False).token_rewards is None
    assert torch.equal(out.candidates, generate(model, inputs, **kwargs, max_parallel=2).candidates)
    model.generation_config.reward_head = [head_folder, head_folder]
    model.generation_config.output_token_rewards = None
    model.generation_config.combine = "worse_of_ranks"
    assert generate(model, inputs, best_of_n=3).source_rewards.shape == (3, 3, 2)


def test_without_best_of_n_anywhere_other_settings_are_ignored(model, head_folder, inputs):
    expected = tiny_model().generate(**inputs, max_new_tokens=5)
    model.generation_config.reward_head = head_folder
    model.generation_config.prune = 0.01
    assert torch.equal(model.generate(**inputs, max_new_tokens=5), expected)
    with pytest.raises(ValueError, match="reward_head passed without best_of_n"):
        model.generate(**inputs, reward_head=head_folder)


def test_a_disabled_model_is_transformers_own(model, head_folder, inputs):
    expected = tiny_model().generate(**inputs, max_new_tokens=5)
    model.generation_config.best_of_n = 3
    model.generation_config.reward_head = head_folder
    disable_best_of_n(model)
    assert torch.equal(model.generate(**inputs, max_new_tokens=5), expected)


@pytest.mark.parametrize("from_model_config", [False, True])
@pytest.mark.parametrize("enabled_when_saved", [False, True])
def test_settings_survive_saving(head_folder, inputs, tmp_path, from_model_config, enabled_when_saved):
    model = tiny_model()
    if enabled_when_saved:
        enable_best_of_n(model)
    # Set by transformers for a model without a generation_config.json; settings it does not know are then dropped
    model.generation_config._from_model_config = from_model_config
    model.generation_config.best_of_n = 3
    model.generation_config.reward_head = head_folder
    model.save_pretrained(tmp_path / "model")
    written = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert written["best_of_n"] == 3
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    dropped = from_model_config and not enabled_when_saved
    assert hasattr(loaded.generation_config, "best_of_n") != dropped
    enable_best_of_n(loaded)
    assert generate(loaded, inputs).rewards.shape == (3, 3)
    # and again, from what was loaded
    loaded.save_pretrained(tmp_path / "again")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "again").generation_config.best_of_n == 3


def test_a_model_without_settings_of_best_of_n_is_saved_as_before(model, tmp_path):
    model.generation_config._from_model_config = True
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["_from_model_config"] is True
    loaded = enable_best_of_n(AutoModelForCausalLM.from_pretrained(tmp_path))
    assert loaded.generation_config._from_model_config is True


def test_a_setting_made_after_loading_is_not_overwritten(head_folder, tmp_path):
    model = tiny_model()
    model.generation_config._from_model_config = True
    model.generation_config.best_of_n = 3
    model.save_pretrained(tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    loaded.generation_config.best_of_n = 5
    assert enable_best_of_n(loaded).generation_config.best_of_n == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward_head": tiny_head(tiny_model())}, "reward_head in the model's generation_config must be a string"),
        ({"reward_head": ["org/name", 3]}, "reward_head in the model's generation_config must be a string"),
        ({"extract_answer": str.strip}, "extract_answer in the model's generation_config cannot be saved"),
        ({"best_of_n": 2.5}, "best_of_n=2.5: expected a whole number"),
    ],
    ids=["head", "list", "function", "count"],
)
def test_settings_that_a_config_cannot_hold_are_refused(model, head_folder, inputs, settings, message):
    for name, value in ({"best_of_n": 3, "reward_head": head_folder} | settings).items():
        setattr(model.generation_config, name, value)
    with pytest.raises(ValueError, match=message):
        model.generate(**inputs)


def test_errors_say_where_settings_come_from(model, head_folder, inputs):
    model.generation_config.best_of_n = 3
    passed = GenerationConfig(reward_head=head_folder)
    with pytest.raises(ValueError, match="cannot be combined with beam") as error:
        model.generate(**inputs, generation_config=passed, num_beams=2)
    assert "best_of_n=3 comes from the model's generation_config." in error.value.__notes__
    assert f"reward_head={head_folder!r} comes from the generation_config passed." in error.value.__notes__
    with pytest.raises(ValueError, match="cannot be combined with beam") as error:
        model.generate(**inputs, best_of_n=2, reward_head=head_folder, num_beams=2)
    assert not hasattr(error.value, "__notes__")
