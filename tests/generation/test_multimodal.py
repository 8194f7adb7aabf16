"""Models that read images: rewards are those of a plain forward pass over image, prompt and completion."""

import numpy as np
import pytest
import torch
import transformers as tf

from hf_elhsr import ElhsrConfig, ElhsrRewardHead, enable_best_of_n
from oracle import assert_rewards_close, oracle_reward
from tiny_multimodal import CONFIGS, image_prompts, of_prompt, tiny_multimodal


@torch.no_grad()
def made(architecture):
    model, inputs = enable_best_of_n(tiny_multimodal(architecture)), image_prompts(architecture)
    head = ElhsrRewardHead(ElhsrConfig.for_model(model))
    states = model(**inputs, output_hidden_states=True).hidden_states
    scale = torch.cat([state[0] for state in states], dim=-1).norm(dim=-1).mean()
    torch.nn.init.normal_(head.weight, std=1.5 / float(scale), generator=torch.Generator().manual_seed(0))
    return model, head, inputs


def generate(model, head, inputs, **kwargs):
    torch.manual_seed(0)
    return model.generate(
        **inputs, best_of_n=4, reward_head=head, max_new_tokens=12, return_dict_in_generate=True, **kwargs
    )


@torch.no_grad()
def oracle(model, head, out, inputs):
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
    rewards = np.empty(tuple(out.lengths.shape))
    for row, column in np.ndindex(*rewards.shape):
        length = int(out.lengths[row, column])
        alone = of_prompt(inputs, row, out.candidates[row, column, 12 : 12 + length])
        states = model(**alone, output_hidden_states=True, use_cache=False).hidden_states
        features = torch.cat([states[layer][0, -length:] for layer in head.config.layers], dim=-1)
        rewards[row, column] = oracle_reward(features.numpy(), weight, bias)
    return rewards


@pytest.mark.parametrize("architecture", CONFIGS)
def test_rewards_equal_the_oracle_and_rescoring(architecture):
    model, head, inputs = made(architecture)
    out = generate(model, head, inputs)
    # candidates have left the batch
    assert int(out.lengths.min()) < int(out.lengths.max())
    assert_rewards_close(out.rewards, oracle(model, head, out, inputs))
    scored = np.empty(tuple(out.lengths.shape))
    for row, column in np.ndindex(*scored.shape):
        length = int(out.lengths[row, column])
        alone = of_prompt(inputs, row, out.candidates[row, column, 12 : 12 + length])
        mask = torch.zeros_like(alone["input_ids"])
        mask[:, -length:] = 1
        scored[row, column] = head.score(model, completion_mask=mask, **alone)
    assert_rewards_close(out.rewards, scored)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_image_matters(architecture):
    model, head, inputs = made(architecture)
    out = generate(model, head, inputs)
    other = inputs | {"pixel_values": inputs["pixel_values"].flip(0)}
    assert np.abs(oracle(model, head, out, other) - out.rewards.numpy()).max() > 1e-3


@pytest.mark.parametrize("architecture", CONFIGS)
def test_padded_rows_are_rescored_together(architecture):
    model, head, inputs = made(architecture)
    out = generate(model, head, inputs)
    best = out.winners[:, 0]
    rows = torch.arange(2)
    ids = out.candidates[rows, best]
    new = (torch.arange(ids.shape[1] - 12) < out.lengths[rows, best][:, None]).long()
    mask = torch.cat([torch.zeros_like(inputs["input_ids"]), new], dim=1)
    further = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in further:
            further[name] = torch.cat([further[name], torch.zeros_like(new)], dim=1)
    scored = head.score(model, ids, mask, torch.cat([inputs["attention_mask"], new], dim=1), **further)
    assert_rewards_close(scored, out.rewards[rows, best])


@pytest.mark.parametrize("kwargs", [{"max_parallel": 3}, {"cache_implementation": "static"}], ids=str)
@pytest.mark.parametrize("architecture", ["llava", "qwen2_vl"])
def test_other_ways_of_decoding(architecture, kwargs):
    model, head, inputs = made(architecture)
    out = generate(model, head, inputs, **kwargs)
    assert_rewards_close(out.rewards, oracle(model, head, out, inputs))


def test_without_a_cache_images_are_refused():
    model, head, inputs = made("llava")
    with pytest.raises(ValueError, match="would need pixel_values in every step"):
        generate(model, head, inputs, use_cache=False)


def test_score_refuses_an_input_that_the_model_does_not_take():
    model, head, inputs = made("llava")
    with pytest.raises(ValueError, match=r"does not accept pixel_value: see its forward"):
        head.score(model, inputs["input_ids"], inputs["attention_mask"], pixel_value=inputs["pixel_values"])


def test_a_model_whose_generate_is_its_own_is_refused():
    config = tf.Blip2Config(
        vision_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        qformer_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        text_config={
            "model_type": "opt", "hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "vocab_size": 64, "word_embed_proj_dim": 16,
        },
    )  # fmt: skip
    with pytest.raises(ValueError, match="has its own generate"):
        enable_best_of_n(tf.Blip2ForConditionalGeneration(config))
