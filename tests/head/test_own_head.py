"""A head of another shape from outside the package: one subclass in HEADS, and all that uses heads works with it."""

import numpy as np
import pytest
import torch
from tiny_task import TinyTask
from tiny_tokenizer import tiny_tokenizer
from trained_heads import train_head

from hf_elhsr import (
    ElhsrConfig,
    ElhsrRewardHead,
    Recording,
    SamplingArguments,
    enable_best_of_n,
    evaluate_rollouts,
    explain,
    sample_rollouts,
)
from hf_elhsr.head.modeling_elhsr import HEADS, make_head
from hf_elhsr.head.token_outputs import TokenOutputs
from hf_elhsr.training import RewardHeadTrainingArguments
from oracle import assert_rewards_close, plain_features
from tiny_models import ragged_prompts, tiny_model


class TwoGates(ElhsrRewardHead):
    """A token counts where both gates are open: g_t = sigmoid(a_t) sigmoid(b_t)."""

    @classmethod
    def parameter_shapes(cls, config):
        shapes = super().parameter_shapes(config)
        return shapes | {"weight": (3, config.num_features), "bias": (3,)}

    def outputs(self, logits):
        gates = logits[..., 0].sigmoid() * logits[..., 1].sigmoid()
        return TokenOutputs(logits[..., 2], gates, logits[..., -1] if self.config.value else None)


@pytest.fixture(autouse=True)
def own_head(monkeypatch):
    monkeypatch.setitem(HEADS, "two_gates", TwoGates)


@pytest.fixture(scope="module")
def model():
    return enable_best_of_n(tiny_model())


def oracle_reward(features, weight, bias):
    a, b, r = (features.astype(np.float64) @ weight.astype(np.float64).T + bias).T
    gates = 1 / (1 + np.exp(-a)) / (1 + np.exp(-b))
    return (gates * r).sum() / max(gates.sum(), 1e-8)


def random_head(model, **config):
    head = make_head(ElhsrConfig.for_model(model, head_type="two_gates", **config))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * 0.02)
        head.bias.copy_(torch.randn(head.bias.shape, generator=generator) * 0.1)
    return head


def test_it_decodes_by_its_equations_after_saving_and_loading(model, tmp_path):
    random_head(model).save_pretrained(tmp_path)
    # Loaded by the class that users know
    head = ElhsrRewardHead.from_pretrained(tmp_path)
    assert type(head) is TwoGates
    inputs = ragged_prompts()
    torch.manual_seed(0)
    out = model.generate(**inputs, best_of_n=4, reward_head=head, max_new_tokens=9, return_dict_in_generate=True)
    length = inputs["input_ids"].shape[1]
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
    expected = np.empty(tuple(out.rewards.shape))
    for row, column in np.ndindex(*expected.shape):
        prompt = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        completion = out.candidates[row, column, length : length + int(out.lengths[row, column])]
        expected[row, column] = oracle_reward(
            plain_features(model, prompt, completion, head.config.layers), weight, bias
        )
    assert_rewards_close(out.rewards, expected)
    assert np.std(expected) > 0.01


def test_it_is_trained_evaluated_and_explained(model, tmp_path):
    arguments = SamplingArguments(n=4, max_new_tokens=3)
    recording = Recording(config=ElhsrConfig.for_model(model, head_type="two_gates"))
    rollouts = sample_rollouts(
        model, tiny_tokenizer(), TinyTask(), tmp_path / "train", prompts=40, arguments=arguments, recording=recording
    )
    settings = RewardHeadTrainingArguments(learning_rate=0.01, weight_decay=0.01, max_epochs=6)
    head, report = train_head(rollouts, settings)
    assert type(head) is TwoGates
    assert min(report.held_out_loss) < np.log(2)
    # All three rows have learned
    assert (head.weight.abs().sum(dim=1) > 0).all()
    unseen = sample_rollouts(
        model,
        tiny_tokenizer(),
        TinyTask(),
        tmp_path / "unseen",
        prompts=20,
        skip=40,
        arguments=arguments,
        recording=Recording(head=head),
    )
    assert evaluate_rollouts(unseen).prompts == 20
    inputs = ragged_prompts(batch=1)
    out = model.generate(
        **inputs,
        best_of_n=3,
        reward_head=head,
        max_new_tokens=5,
        return_dict_in_generate=True,
        output_token_rewards=True,
    )
    for candidate in explain(out, tiny_tokenizer(), head=head, model=model).prompts[0].candidates:
        shares = candidate.layer_shares
        assert sum(shares.shares) + shares.bias + shares.rounding == pytest.approx(candidate.reward, abs=1e-5)
        assert abs(shares.rounding) < 1e-4


def test_weights_of_another_shape_are_refused(model, tmp_path):
    random_head(model).save_pretrained(tmp_path)
    config = ElhsrConfig.from_pretrained(tmp_path)
    config.head_type = "gated_linear"
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="weight"):
        ElhsrRewardHead.from_pretrained(tmp_path)


def test_an_unknown_head_is_refused(model, tmp_path, monkeypatch):
    random_head(model).save_pretrained(tmp_path)
    monkeypatch.delitem(HEADS, "two_gates")
    with pytest.raises(ValueError, match="Unknown head_type 'two_gates': expected one of gated_linear"):
        ElhsrRewardHead.from_pretrained(tmp_path)
