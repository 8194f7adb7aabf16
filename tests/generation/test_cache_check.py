"""A model whose state is not in its cache, or in one whose rows do not multiply, is refused for what it does."""

import pytest
import torch
import transformers as tf
from torch import nn

from hf_elhsr import enable_best_of_n
from hf_elhsr.generation import cache_check
from oracle import assert_rewards_close, oracle_rewards
from tiny_models import CONFIGS, ragged_prompts, tiny_head, tiny_model

PLAIN = {"best_of_n": 3, "max_new_tokens": 6, "top_k": 0, "return_dict_in_generate": True}


class Remembering(nn.Module):
    """A layer's MLP, with an average over the tokens so far that the layer keeps where `keep` puts it."""

    def __init__(self, mlp, keep):
        super().__init__()
        self.mlp, self.keep = mlp, keep

    def forward(self, hidden_states):
        seen = hidden_states.mean(dim=1, keepdim=True)
        if hidden_states.shape[1] == 1:
            seen = (seen + self.keep.load(len(seen))) / 2
        self.keep.store(seen)
        return self.mlp(hidden_states + seen)


class InAttribute:
    state = torch.zeros(1, 1, 32)

    def store(self, state):
        self.state = state

    def load(self, rows):
        return self.state


class InListByRow(InAttribute):
    """Rows that are new begin with zeros, so that nothing fails."""

    state = ()

    def store(self, state):
        self.state = list(state)

    def load(self, rows):
        return torch.stack(self.state) if len(self.state) == rows else torch.zeros(rows, 1, 32)


class OfTheFirstRow(InAttribute):
    """As many numbers as one row has, whatever the batch."""

    def store(self, state):
        self.state = state[:1]


def remembering_model(keep):
    model = enable_best_of_n(tiny_model())
    layer = model.model.layers[1]
    layer.mlp = Remembering(layer.mlp, keep)
    return model


def recurrent_gemma():
    torch.manual_seed(0)
    config = tf.RecurrentGemmaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        lru_width=32,
        attention_window_size=8,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return enable_best_of_n(tf.AutoModelForCausalLM.from_config(config).eval())


def minimax():
    config = tf.MiniMaxConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        block_size=4,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=128,
        pad_token_id=0,
    )
    return enable_best_of_n(tf.AutoModelForCausalLM.from_config(config).eval())


@pytest.mark.parametrize(
    "made",
    [
        recurrent_gemma,
        minimax,
        lambda: remembering_model(InAttribute()),
        lambda: remembering_model(InListByRow()),
        lambda: remembering_model(OfTheFirstRow()),
    ],
    ids=["recurrent_gemma", "minimax", "attribute", "list", "first_row"],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_state_outside_the_cache_is_refused(made, batch):
    model = made()
    head = tiny_head(model)
    with pytest.raises(ValueError, match=r"best_of_n cannot share the prompt .* Pass use_cache=False"):
        model.generate(**ragged_prompts(batch), reward_head=head, **PLAIN)
    # It is refused again: what was tried and failed is not taken for tried
    with pytest.raises(ValueError, match="best_of_n cannot share the prompt"):
        model.generate(**ragged_prompts(batch), reward_head=head, **PLAIN)


def test_without_a_cache_it_works():
    model = recurrent_gemma()
    head, inputs = tiny_head(model), ragged_prompts(2)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    out = model.generate(**inputs, reward_head=head, use_cache=False, **PLAIN)
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_no_architecture_that_works_is_refused(architecture, dtype):
    model = enable_best_of_n(tiny_model(architecture).to(dtype))
    head = tiny_head(model)
    torch.manual_seed(3)
    model.generate(**ragged_prompts(), reward_head=head, **PLAIN)
    after_check = torch.rand(1)
    assert model in cache_check._TRIED
    # The check is made once, and takes no random numbers
    torch.manual_seed(3)
    model.generate(**ragged_prompts(), reward_head=head, **PLAIN)
    assert torch.equal(torch.rand(1), after_check)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_prompt_of_padding_alone(attention):
    """Its candidates are those of a model that has seen nothing, and its neighbours are as ever."""
    model = enable_best_of_n(tiny_model(attn_implementation=attention))
    head, inputs = tiny_head(model), ragged_prompts()
    for row in (0, 1):
        changed = {name: value.clone() for name, value in inputs.items()}
        changed["input_ids"][row], changed["attention_mask"][row] = 0, 0
        torch.manual_seed(0)
        out = model.generate(**changed, reward_head=head, **PLAIN | {"best_of_n": 5, "max_new_tokens": 12})
        assert_rewards_close(out.rewards, oracle_rewards(model, head, out, changed))


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize("value", [False, 0, torch.tensor([0]).numpy()[0] != 0])
def test_use_cache_may_be_any_false_or_true(architecture, value):
    model = enable_best_of_n(tiny_model(architecture))
    head, inputs = tiny_head(model), ragged_prompts()
    for given in (value, type(value)(1)):
        torch.manual_seed(0)
        out = model.generate(**inputs, reward_head=head, use_cache=given, **PLAIN)
        assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))
    with pytest.raises(ValueError, match="use_cache='no': expected True or False"):
        model.generate(**inputs, reward_head=head, use_cache="no", **PLAIN)
