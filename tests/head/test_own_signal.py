"""A signal from outside the package: one class in SIGNALS, and heads on it decode, re-score, are trained and loaded."""

import numpy as np
import pytest
import torch
from tiny_task import TinyTask
from tiny_tokenizer import tiny_tokenizer
from trained_heads import train_head

from hf_elhsr import ElhsrConfig, ElhsrRewardHead, Recording, SamplingArguments, enable_best_of_n, sample_rollouts
from hf_elhsr.evaluation.metrics import area_under_curve
from hf_elhsr.head.configuration_elhsr import SIGNALS
from hf_elhsr.head.distributions import DistributionSignal
from hf_elhsr.head.modeling_elhsr import make_head
from hf_elhsr.training import RewardHeadTrainingArguments
from oracle import assert_rewards_close, oracle_reward
from tiny_models import ragged_prompts, tiny_model


class Surprise(DistributionSignal):
    """log p of the drawn token, the entropy of the distribution it was drawn from, and whether its number is even."""

    name = "surprise"
    training_defaults = {"learning_rate": 0.05, "weight_decay": 0.01, "patience": 10}

    def check(self):
        if self.config.layers:
            raise ValueError("A head that reads surprise has no layers.")

    @property
    def num_features(self):
        return 3

    @property
    def description(self):
        return "the token's surprise"

    def of_logits(self, logits, token_ids):
        log_probabilities = logits.float().log_softmax(-1)
        drawn = log_probabilities.gather(-1, token_ids[..., None])[..., 0]
        entropy = -(log_probabilities.exp() * log_probabilities).sum(-1)
        return torch.stack([drawn, entropy, (token_ids % 2 == 0).float()], dim=-1)


@pytest.fixture(autouse=True)
def own_signal(monkeypatch):
    monkeypatch.setitem(SIGNALS, "surprise", Surprise)


@pytest.fixture(scope="module")
def model():
    return enable_best_of_n(tiny_model())


def own_head(model):
    head = make_head(ElhsrConfig.for_model(model, signal="surprise"))
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, -0.5, 2.0], [0.7, 0.3, -1.0]]))
        head.bias.copy_(torch.tensor([0.1, -0.2]))
    return head


@torch.no_grad()
def oracle_features(model, prompt, completion):
    logits = model(input_ids=torch.cat([prompt, completion])[None], use_cache=False).logits[0].double().numpy()
    before = logits[len(prompt) - 1 : -1]
    log_p = (
        before
        - np.log(np.exp(before - before.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - before.max(-1, keepdims=True)
    )
    tokens = completion.numpy()
    return np.stack([log_p[range(len(tokens)), tokens], -(np.exp(log_p) * log_p).sum(-1), tokens % 2 == 0], axis=-1)


def test_rewards_while_decoding_are_those_of_the_equations_and_of_score(model, tmp_path):
    own_head(model).save_pretrained(tmp_path)
    head = ElhsrRewardHead.from_pretrained(tmp_path)
    inputs = ragged_prompts()
    torch.manual_seed(0)
    out = model.generate(**inputs, best_of_n=4, reward_head=head, max_new_tokens=9, return_dict_in_generate=True)
    length = inputs["input_ids"].shape[1]
    expected = np.empty(tuple(out.rewards.shape))
    for row, column in np.ndindex(*expected.shape):
        prompt = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        completion = out.candidates[row, column, length : length + int(out.lengths[row, column])]
        features = oracle_features(model, prompt, completion)
        expected[row, column] = oracle_reward(features, head.weight.detach().numpy(), head.bias.detach().numpy())
    assert_rewards_close(out.rewards, expected)
    assert np.std(expected) > 0.05
    new = torch.arange(9)[None] < out.lengths.view(-1, 1)
    prompts = inputs["attention_mask"].repeat_interleave(4, dim=0)
    ids = out.candidates.flatten(0, 1)
    new = new[:, : ids.shape[1] - length].long()
    rescored = head.score(model, ids, torch.cat([torch.zeros_like(prompts), new], 1), torch.cat([prompts, new], 1))
    assert_rewards_close(rescored.view(3, 4), expected)


def test_a_head_is_trained_on_it_with_its_own_defaults(model, tmp_path):
    rollouts = sample_rollouts(
        model,
        tiny_tokenizer(),
        TinyTask(),
        tmp_path,
        prompts=40,
        arguments=SamplingArguments(n=4, max_new_tokens=3),
        recording=Recording(config=ElhsrConfig.for_model(model, signal="surprise")),
    )
    head, _ = train_head(rollouts)
    assert RewardHeadTrainingArguments.preset("default", "surprise").learning_rate == 0.05
    out = model.generate(
        **ragged_prompts(), best_of_n=8, reward_head=head, max_new_tokens=3, return_dict_in_generate=True
    )
    # The task labels by the parity of the first token, of which a third of the mean reward speaks
    first = out.candidates[:, :, ragged_prompts()["input_ids"].shape[1]]
    assert area_under_curve(out.rewards.flatten().numpy(), (first % 2 == 0).flatten().numpy()) > 0.7
