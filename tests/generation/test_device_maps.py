"""Models that accelerate distributes over devices or offloads give the same candidates and rewards."""

import pytest
import torch
from tiny_tokenizer import tiny_tokenizer
from transformers import AutoModelForCausalLM

from hf_elhsr import ElhsrConfig, enable_best_of_n, explain
from tiny_models import tiny_head, tiny_model

_ROPE = {"model.rotary_emb": "cpu"}
DEVICE_MAPS = {
    "cpu": "cpu",
    "auto": "auto",
    "some layers on disk": {
        **_ROPE, "model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk",
        "model.layers.2": "disk", "model.norm": "cpu", "lm_head": "cpu",
    },
    "all weights on disk": {
        **_ROPE, "model.embed_tokens": "disk", "model.layers": "disk", "model.norm": "disk", "lm_head": "disk",
    },
}  # fmt: skip


@pytest.fixture
def load(tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")

    def loaded(device_map):
        options = {"offload_folder": tmp_path / "offloaded"} if isinstance(device_map, dict) else {}
        return enable_best_of_n(
            AutoModelForCausalLM.from_pretrained(tmp_path / "model", device_map=device_map, **options)
        )

    return loaded


@pytest.mark.parametrize("device_map", DEVICE_MAPS.values(), ids=DEVICE_MAPS)
def test_the_same_candidates_and_rewards(model, inputs, load, device_map):
    head = tiny_head(model)
    outs = []
    for one in (model, load(device_map)):
        torch.manual_seed(0)
        outs.append(
            one.generate(**inputs, best_of_n=4, reward_head=head, max_new_tokens=8, return_dict_in_generate=True)
        )
        scored = head.score(one, outs[-1].sequences, torch.ones_like(outs[-1].sequences))
        outs[-1]["scored"] = scored
    expected, out = outs
    assert torch.equal(out.candidates, expected.candidates)
    assert torch.equal(out.rewards, expected.rewards)
    assert torch.equal(out["scored"], expected["scored"])


@pytest.mark.parametrize("device_map", DEVICE_MAPS.values(), ids=DEVICE_MAPS)
def test_the_layers_shares_are_explained(model, inputs, load, device_map):
    head, one = tiny_head(model), load(device_map)
    settings = {"max_new_tokens": 4, "return_dict_in_generate": True, "output_token_rewards": True}
    out = one.generate(**inputs, best_of_n=2, reward_head=head, **settings)
    expected, explained = (
        explain(out, tiny_tokenizer(), head, read_by, inputs["attention_mask"]) for read_by in (model, one)
    )
    assert explained == expected
    assert explained.prompts[0].candidates[0].layer_shares is not None


def test_weights_that_were_offloaded_cannot_be_sampled(load):
    for device_map in list(DEVICE_MAPS.values())[2:]:
        with pytest.raises(ValueError, match="no fingerprint can be taken"):
            ElhsrConfig.for_model(load(device_map))
    assert ElhsrConfig.for_model(load("auto")).fingerprint == ElhsrConfig.for_model(tiny_model()).fingerprint


@pytest.mark.parametrize("device_map", DEVICE_MAPS.values(), ids=DEVICE_MAPS)
def test_weights_that_can_be_read_are_compared(load, device_map):
    head = tiny_head(tiny_model(seed=1))
    model = load(device_map)
    if device_map == DEVICE_MAPS["all weights on disk"]:
        head.config.check_fits(model)
        return
    with pytest.raises(ValueError, match="embedding weights that are"):
        model.generate(torch.tensor([[5, 6]]), best_of_n=2, reward_head=head)
