"""score_generation: rewards from transformers' own loops equal the oracle's, and the model is left as it was."""

import pytest
import torch
from transformers import DynamicCache, StaticCache

from hf_elhsr import RunningLogProbability, score_generation
from oracle import assert_rewards_close, oracle_reward, plain_features
from tiny_models import ragged_prompts, tiny_head, tiny_model


def expected_rewards(model, head, sequences, inputs, copies=1, eos=(2, 3, 4)):
    rewards = []
    for row, sequence in enumerate(sequences):
        mask = inputs["attention_mask"][row // copies].bool()
        prompt, completion = inputs["input_ids"][row // copies][mask], sequence[len(mask) :]
        ends = torch.isin(completion, torch.tensor(eos)).nonzero()
        if len(ends):
            completion = completion[: int(ends[0]) + 1]
        features = plain_features(model, prompt, completion, head.config.layers)
        rewards.append(oracle_reward(features, head.weight.detach().numpy(), head.bias.detach().numpy()))
    return rewards


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2", "mamba", "lfm2"])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"do_sample": True, "num_return_sequences": 4},
        {"do_sample": False},
        {"do_sample": True, "top_p": 0.7, "use_cache": False},
    ],
    ids=str,
)
def test_transformers_own_loop(architecture, kwargs):
    model = tiny_model(architecture)
    head = tiny_head(model)
    inputs = ragged_prompts()
    torch.manual_seed(0)
    plain = model.generate(**inputs, max_new_tokens=11, **kwargs)
    attributes = set(vars(model))
    torch.manual_seed(0)
    with score_generation(model, head) as scored:
        sequences = model.generate(**inputs, max_new_tokens=11, **kwargs)
    assert torch.equal(sequences, plain)
    assert set(vars(model)) == attributes
    copies = kwargs.get("num_return_sequences", 1)
    assert_rewards_close(scored.rewards, expected_rewards(model, head, sequences, inputs, copies))


def test_rewards_within_the_context_and_of_the_latest_call(head, inputs):
    model = tiny_model()
    with score_generation(model, head) as scored:
        with pytest.raises(ValueError, match="Nothing has been generated"):
            _ = scored.rewards
        for seed, length in ((0, 5), (1, 12)):
            torch.manual_seed(seed)
            sequences = model.generate(**inputs, do_sample=True, max_new_tokens=length)
            assert_rewards_close(scored.rewards, expected_rewards(model, head, sequences, inputs))
            # Reading rewards twice does not feed the last token twice
            assert_rewards_close(scored.rewards, expected_rewards(model, head, sequences, inputs))


def test_a_returned_cache_is_unchanged(head):
    model, inputs = tiny_model(), ragged_prompts(batch=1)
    cache = DynamicCache(config=model.config)
    with score_generation(model, head) as scored:
        out = model.generate(**inputs, max_new_tokens=6, past_key_values=cache, return_dict_in_generate=True)
    assert cache.get_seq_length() == out.sequences.shape[1] - 1
    assert out.past_key_values is cache
    assert_rewards_close(scored.rewards, expected_rewards(model, head, out.sequences, inputs))


def test_output_hidden_states_of_the_user_are_unchanged(head, inputs):
    model = tiny_model()
    plain = model.generate(**inputs, max_new_tokens=5, output_hidden_states=True, return_dict_in_generate=True)
    with score_generation(model, head):
        out = model.generate(**inputs, max_new_tokens=5, output_hidden_states=True, return_dict_in_generate=True)
    for actual, expected in zip(out.hidden_states, plain.hidden_states, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_any_processor(inputs):
    model, log_probability = tiny_model(), RunningLogProbability()
    with score_generation(model, log_probability) as scored:
        out = model.generate(
            **inputs, do_sample=False, max_new_tokens=6, output_logits=True, return_dict_in_generate=True
        )
    with pytest.raises(ValueError, match="keeps no rewards"):
        _ = scored.rewards
    new = out.sequences[:, 9:]
    log_probabilities = torch.stack([logits.log_softmax(-1) for logits in out.logits], dim=1)
    chosen = log_probabilities.gather(-1, new[..., None])[..., 0]
    ended = torch.isin(new, torch.tensor([2, 3, 4])).long()
    kept = (ended.cumsum(1) - ended) == 0
    torch.testing.assert_close(log_probability.mean, (chosen * kept).sum(1) / kept.sum(1))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"num_beams": 2}, "not beam_search"), ({"prompt_lookup_num_tokens": 2}, "not assisted_generation")],
)
def test_loops_whose_rows_move_are_refused(head, kwargs, message):
    model, inputs = tiny_model(), ragged_prompts(batch=1)
    attributes = set(vars(model))
    with pytest.raises(ValueError, match=message), score_generation(model, head):
        model.generate(**inputs, max_new_tokens=4, **kwargs)
    assert set(vars(model)) == attributes


def test_nested_contexts_are_refused(head, inputs):
    model = tiny_model()
    with (
        score_generation(model, head),
        pytest.raises(ValueError, match="already inside"),
        score_generation(model, head),
    ):
        pass


def test_a_head_that_does_not_fit_is_refused(inputs):
    with (
        pytest.raises(ValueError, match="does not fit"),
        score_generation(tiny_model(), tiny_head(tiny_model("qwen2"))),
    ):
        pass


def test_static_caches_have_room_for_the_last_token(head, inputs):
    model = tiny_model()
    with score_generation(model, head) as scored:
        sequences = model.generate(**inputs, do_sample=True, max_new_tokens=7, cache_implementation="static")
    assert_rewards_close(scored.rewards, expected_rewards(model, head, sequences, inputs))
    cache = StaticCache(config=model.config, max_cache_len=15)
    with (
        pytest.raises(ValueError, match="holds 15 tokens and score_generation needs 16"),
        score_generation(model, head),
    ):
        model.generate(**inputs, max_new_tokens=7, past_key_values=cache)


def test_a_cache_filled_with_gradients_on(head):
    model, inputs = tiny_model(), ragged_prompts(batch=1)
    cache = DynamicCache(config=model.config)
    model(input_ids=inputs["input_ids"][:, :5], past_key_values=cache, use_cache=True)
    with score_generation(model, head) as scored:
        sequences = model.generate(**inputs, max_new_tokens=5, past_key_values=cache)
    assert_rewards_close(scored.rewards, expected_rewards(model, head, sequences, inputs))
