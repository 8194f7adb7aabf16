"""The central law on the real model, and the one line with the shipped head."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hf_elhsr import ElhsrConfig, ElhsrRewardHead
from hf_elhsr.models import load_language_model
from hf_elhsr.rollouts import encode_prompts
from hf_elhsr.tasks import ArithmeticTask
from oracle import assert_rewards_close, oracle_rewards

SHIPPED = Path(__file__).parents[2] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
SETTINGS = {"temperature": 0.8, "top_p": 0.9, "top_k": 0, "max_new_tokens": 32, "return_dict_in_generate": True}


def questions(count):
    return [problem.question for problem in ArithmeticTask().problems("test", count)]


def scaled_random_head(model, inputs):
    """A head with W h of order one on this model, whose features differ in scale by four orders of magnitude."""
    head = ElhsrRewardHead(ElhsrConfig.for_model(model))
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
        scale = torch.cat([state[inputs["attention_mask"].bool()] for state in states], dim=-1).std(0)
        noise = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(0))
        head.weight.copy_(noise / scale / head.config.num_features**0.5)
    return head


@pytest.fixture(scope="module")
def out_of_random_head(smollm2):
    model, tokenizer = smollm2
    inputs = encode_prompts(tokenizer, [*questions(2), "Hi"])
    head = scaled_random_head(model, inputs)
    torch.manual_seed(0)
    return model, head, model.generate(**inputs, best_of_n=4, reward_head=head, **SETTINGS), inputs


def test_rewards_while_decoding_are_the_oracles(out_of_random_head):
    model, head, out, inputs = out_of_random_head
    assert (inputs["attention_mask"] == 0).any()
    assert 32 in out.lengths
    assert out.lengths.min() < 32
    expected = oracle_rewards(model, head, out, inputs)
    assert_rewards_close(out.rewards, expected)
    assert np.std(expected) > 0.02


def test_the_shipped_head_by_its_folder(smollm2):
    model, tokenizer = smollm2
    inputs = encode_prompts(tokenizer, questions(2))
    torch.manual_seed(0)
    out = model.generate(**inputs, best_of_n=4, reward_head=SHIPPED, **SETTINGS)
    head = ElhsrRewardHead.from_pretrained(SHIPPED)
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs), tolerance=1e-3)


def test_bfloat16_with_the_shipped_head(smollm2):
    """The fingerprint passes in another precision, and rewards agree roughly with float32."""
    model, tokenizer = load_language_model("smollm2-demo", "bfloat16")
    inputs = encode_prompts(tokenizer, questions(2))
    torch.manual_seed(0)
    out = model.generate(**inputs, best_of_n=4, reward_head=SHIPPED, **SETTINGS)
    head = ElhsrRewardHead.from_pretrained(SHIPPED)
    difference = np.abs(oracle_rewards(smollm2[0], head, out, inputs) - out.rewards.numpy())
    assert np.median(difference) < 0.2
