"""A padding row more in the vocabulary, as fine-tuning scripts add, leaves hidden states as they are: heads fit."""

import pytest
import torch

from hf_elhsr import ElhsrConfig, enable_best_of_n
from oracle import assert_rewards_close, oracle_rewards
from tiny_models import CONFIGS, ragged_prompts, tiny_head, tiny_model

SIZES = [65, 72, 128, 200, 63, 40]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mamba"])
def test_a_head_of_hidden_states_fits(architecture, size):
    model = tiny_model(architecture)
    head = tiny_head(model)
    ids = ragged_prompts(batch=1)["input_ids"].clamp_max(39)
    mask = torch.zeros_like(ids)
    mask[:, -4:] = 1
    before = head.score(model, ids, mask)
    model.resize_token_embeddings(size)
    assert torch.equal(head.score(model, ids, mask), before)


def test_generate_works_with_it():
    model = enable_best_of_n(tiny_model())
    head, inputs = tiny_head(model), ragged_prompts()
    model.resize_token_embeddings(65)
    out = model.generate(**inputs, best_of_n=3, reward_head=head, max_new_tokens=5, return_dict_in_generate=True)
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("architecture", CONFIGS)
def test_another_model_of_another_size_is_still_refused(architecture, size):
    config = ElhsrConfig.for_model(tiny_model(architecture))
    other = tiny_model(architecture, seed=1)
    other.resize_token_embeddings(size)
    with pytest.raises(ValueError, match=r"embedding weights .* late_weight weights"):
        config.check_fits(other)


@pytest.mark.parametrize("signal", ["logits", "top_log_probabilities"])
def test_signals_made_of_distributions_need_the_same_size(signal):
    model = tiny_model()
    config = ElhsrConfig.for_model(model, signal=signal)
    model.resize_token_embeddings(65)
    with pytest.raises(ValueError, match=r"vocabulary size 64 .head. against 65 .model."):
        config.check_fits(model)


def test_features_recorded_with_another_size_are_of_the_same_model():
    model = tiny_model()
    before = ElhsrConfig.for_model(model)
    model.resize_token_embeddings(200)
    after = ElhsrConfig.for_model(model)
    assert before.columns_in(after) == after.columns_in(before) == [slice(0, before.num_features)]
    other = tiny_model(seed=1)
    other.resize_token_embeddings(200)
    with pytest.raises(ValueError, match="fingerprints differ"):
        before.columns_in(ElhsrConfig.for_model(other))
