"""Heads that read the distribution a token was drawn from: equal to the equations, while decoding and re-scored."""

import numpy as np
import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from hf_elhsr import ElhsrConfig, ElhsrRewardHead, enable_best_of_n, score_generation, score_logprobs
from hf_elhsr.head.distributions import top_log_probabilities
from hf_elhsr.rollouts.recorders import FeatureRecorder
from oracle import assert_rewards_close, oracle_reward
from tiny_models import ragged_prompts, tiny_model

SIGNALS = ["logits", "top_log_probabilities"]


def head_for(model, signal, seed=0, **kwargs):
    if signal == "top_log_probabilities":
        kwargs = {"num_log_probabilities": 5} | kwargs
    head = ElhsrRewardHead(ElhsrConfig.for_model(model, signal=signal, **kwargs))
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed)))
    return head


@torch.no_grad()
def oracle_features(model, head, prompt, completion):
    """From one plain forward pass: the logits one place before each token, and their log-probabilities in float64."""
    logits = model(input_ids=torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1].double().numpy()
    if head.config.signal == "logits":
        return logits
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    k = head.config.num_log_probabilities
    best = -np.sort(-log_probabilities, axis=-1)[:, :k]
    own = np.take_along_axis(log_probabilities, completion.numpy()[:, None], axis=-1)
    return np.concatenate([best, own], axis=-1)


def oracle_table(model, head, out, inputs):
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
    length = inputs["input_ids"].shape[1]
    rewards = np.empty(tuple(out.lengths.shape))
    for row, column in np.ndindex(*rewards.shape):
        prompt = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        completion = out.candidates[row, column, length : length + int(out.lengths[row, column])]
        rewards[row, column] = oracle_reward(oracle_features(model, head, prompt, completion), weight, bias)
    return rewards


def generate(model, head, **kwargs):
    torch.manual_seed(0)
    settings = {"best_of_n": 5, "max_new_tokens": 12, "return_dict_in_generate": True} | kwargs
    return model.generate(**ragged_prompts(), reward_head=head, **settings)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3", "mamba"])
def test_equal_to_the_oracle_while_decoding(architecture, signal):
    model = enable_best_of_n(tiny_model(architecture))
    head = head_for(model, signal)
    out = generate(model, head)
    expected = oracle_table(model, head, out, ragged_prompts())
    assert_rewards_close(out.rewards, expected)
    assert np.std(expected) > 0.05
    assert len(set(out.lengths.flatten().tolist())) > 2


@pytest.mark.parametrize("signal", SIGNALS)
def test_the_distribution_is_raw_whatever_the_processors(signal):
    model = enable_best_of_n(tiny_model("llama"))
    head = head_for(model, signal)
    out = generate(model, head, temperature=0.5, top_p=0.7, repetition_penalty=1.3)
    assert_rewards_close(out.rewards, oracle_table(model, head, out, ragged_prompts()))


class InPlace(LogitsProcessor):
    def __call__(self, input_ids, scores):
        scores[:, ::2] -= 5.0
        return scores


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_processor_that_works_in_place_does_not_change_the_signal(signal):
    model = enable_best_of_n(tiny_model("llama"))
    head = head_for(model, signal)
    out = generate(model, head, logits_processor=LogitsProcessorList([InPlace()]))
    assert_rewards_close(out.rewards, oracle_table(model, head, out, ragged_prompts()))


def test_no_log_probability_is_below_the_floor():
    logits = torch.tensor([[0.0, -9999.0, -49.0, -60.0]])
    features = top_log_probabilities(logits, torch.tensor([1]), 4)
    assert features.tolist() == [[0.0, -49.0, -50.0, -50.0, -50.0]]


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("architecture", ["llama", "mamba"])
def test_equal_to_rescoring(architecture, signal):
    model = enable_best_of_n(tiny_model(architecture))
    head, inputs = head_for(model, signal), ragged_prompts()
    out = generate(model, head)
    batch, n, length = out.candidates.shape
    new = (torch.arange(length - inputs["input_ids"].shape[1])[None] < out.lengths.view(-1, 1)).long()
    prompt_mask = inputs["attention_mask"].repeat_interleave(n, dim=0)
    completion_mask = torch.cat([torch.zeros_like(prompt_mask), new], dim=1)
    rescored = head.score(model, out.candidates.flatten(0, 1), completion_mask, torch.cat([prompt_mask, new], dim=1))
    assert_rewards_close(out.rewards, rescored.view(batch, n))
    with pytest.raises(ValueError, match="There is no token before the first sampled one"):
        head.score(model, out.candidates.flatten(0, 1), torch.ones_like(completion_mask))


@pytest.mark.parametrize("signal", SIGNALS)
def test_transformers_own_loop(signal):
    model = tiny_model("llama")
    head, inputs = head_for(model, signal), ragged_prompts()
    torch.manual_seed(0)
    with score_generation(model, head) as scored:
        sequences = model.generate(**inputs, do_sample=True, max_new_tokens=6, min_new_tokens=6)
    length = inputs["input_ids"].shape[1]
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
    expected = [
        oracle_reward(oracle_features(model, head, ids[:length][mask.bool()], ids[length:]), weight, bias)
        for ids, mask in zip(sequences, inputs["attention_mask"], strict=True)
    ]
    assert_rewards_close(scored.rewards, expected)


@pytest.mark.parametrize("signal", SIGNALS)
def test_recorded_features_and_a_saved_head(tmp_path, signal):
    model = enable_best_of_n(tiny_model("llama"))
    head, inputs = head_for(model, signal), ragged_prompts()
    recorder = FeatureRecorder(head.config)
    torch.manual_seed(0)
    out = model.sample_candidates(**inputs, n=2, max_new_tokens=8, signal_processor=[recorder])
    expected = [
        oracle_features(
            model,
            head,
            inputs["input_ids"][row][inputs["attention_mask"][row].bool()],
            out.completion(row, column),
        )
        for row, column in np.ndindex(*out.lengths.shape)
    ]
    np.testing.assert_allclose(recorder.features().numpy(), np.concatenate(expected), atol=1e-4)
    head.save_pretrained(tmp_path)
    loaded = ElhsrRewardHead.from_pretrained(tmp_path)
    assert loaded.config.signal == signal
    assert torch.equal(loaded.weight, head.weight)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3", "mamba"])
def test_logits_are_recorded_in_the_dtype_that_the_model_computes_them_in(architecture):
    """Half the size of what the decoding loop shows of a model in bfloat16, and the very same numbers."""
    model = enable_best_of_n(tiny_model(architecture).bfloat16())
    config = ElhsrConfig.for_model(model, signal="logits")
    kept, shown = FeatureRecorder(config, dtype=config.reads.recorded_dtype(model)), FeatureRecorder(config)
    model.sample_candidates(**ragged_prompts(), n=2, max_new_tokens=8, signal_processor=[kept, shown])
    assert (kept.features().dtype, shown.features().dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(kept.features().float(), shown.features())


def test_values_computed_in_float32_are_recorded_in_float32():
    model = tiny_model("llama").bfloat16()
    hidden, logits = ElhsrConfig.for_model(model), ElhsrConfig.for_model(model, signal="logits")
    log_probabilities = ElhsrConfig.for_model(model, signal="top_log_probabilities", num_log_probabilities=5)
    assert [config.reads.recorded_dtype(model) for config in (hidden, logits, log_probabilities)] == [
        torch.bfloat16,
        torch.bfloat16,
        torch.float32,
    ]
    model.lm_head.float()
    assert logits.reads.recorded_dtype(model) == torch.float32
    # As packed weights are
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.uint8), requires_grad=False)
    assert logits.reads.recorded_dtype(model) == torch.float32
    model.lm_head = torch.nn.Identity()
    assert logits.reads.recorded_dtype(model) == torch.float32


def logprobs_of(features):
    """As a chat-completions answer has them, in no order; the last feature is the token's own."""
    return {
        "content": [
            {"token": "t", "logprob": row[-1], "top_logprobs": [{"token": "x", "logprob": v} for v in row[-2::-1]]}
            for row in features.tolist()
        ]
    }


def test_the_log_probabilities_of_an_answer_give_the_reward_of_its_tokens():
    model = enable_best_of_n(tiny_model("llama"))
    head, inputs = head_for(model, "top_log_probabilities"), ragged_prompts()
    out = generate(model, head)
    prompt = inputs["input_ids"][0][inputs["attention_mask"][0].bool()]
    length = inputs["input_ids"].shape[1]
    for column in range(5):
        completion = out.candidates[0, column, length : length + int(out.lengths[0, column])]
        logprobs = logprobs_of(oracle_features(model, head, prompt, completion))
        assert score_logprobs(head, logprobs) == pytest.approx(float(out.rewards[0, column]), abs=1e-4)


def test_impossible_tokens_have_one_log_probability():
    head = head_for(tiny_model("llama"), "top_log_probabilities", num_log_probabilities=2)
    rewards = [score_logprobs(head, logprobs_of(np.array([[-0.1, low, -0.1]]))) for low in (-50.0, -9999.0, -np.inf)]
    assert rewards[0] == rewards[1] == rewards[2]
    assert rewards[0] != score_logprobs(head, logprobs_of(np.array([[-0.1, -49.0, -0.1]])))


def test_merged_log_probabilities_count_as_the_lowest_returned():
    """llama.cpp's shows one entry for all tokens of the same text."""
    head = head_for(tiny_model("llama"), "top_log_probabilities", num_log_probabilities=3)
    whole = logprobs_of(np.array([[-0.5, -2.0, -3.0, -2.0], [-1.0, -1.5, -1.5, -1.0]]))
    merged = {
        "content": [
            whole["content"][0],
            {**whole["content"][1], "top_logprobs": [{"logprob": -1.0}, {"logprob": -1.5}]},
        ]
    }
    assert score_logprobs(head, merged) == score_logprobs(head, whole)
    other = logprobs_of(np.array([[-0.5, -2.0, -3.0, -2.0], [-1.0, -1.5, -4.0, -1.0]]))
    assert score_logprobs(head, merged) != score_logprobs(head, other)


@pytest.mark.parametrize(
    ("logprobs", "message"),
    [
        (None, "Expected logprobs"),
        ({"content": []}, "Expected logprobs"),
        (logprobs_of(np.array([[-1.0, -1.0]])), "has 1 top_logprobs per token, and this head reads 2"),
        (logprobs_of(np.array([[-1.0, np.nan, -1.0]])), "log-probability nan"),
        (logprobs_of(np.array([[-1.0, -1.0, 2.0]])), "log-probability 2.0"),
        (
            {"content": [{"logprob": -1.0, "top_logprobs": [{"logprob": -1.0}] * 2}, {"logprob": -1.0}]},
            "Token 1 has no top_logprobs",
        ),
        ({"content": [{"top_logprobs": [{"logprob": -1.0}] * 2}]}, "log-probability None"),
        ({"content": [{"logprob": -1.0, "top_logprobs": [{}, {"logprob": -1.0}]}]}, "log-probability None"),
    ],
)
def test_answers_that_cannot_be_scored(logprobs, message):
    head = head_for(tiny_model("llama"), "top_log_probabilities", num_log_probabilities=2)
    with pytest.raises(ValueError, match=message):
        score_logprobs(head, logprobs)


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_model_that_does_not_return_hidden_states(signal):
    model = tiny_model("llama")
    forward = model.forward
    model.forward = lambda *args, **kwargs: forward(*args, **kwargs | {"output_hidden_states": False})
    with pytest.raises(ValueError, match="does not return hidden states"):
        ElhsrConfig.for_model(model)
    enable_best_of_n(model)
    out = generate(model, head_for(model, signal))
    assert torch.isfinite(out.rewards).all()


def test_configurations_that_are_refused():
    model = tiny_model("llama")
    with pytest.raises(ValueError, match="reads 'logits'"):
        score_logprobs(head_for(model, "logits"), {})
    with pytest.raises(ValueError, match="has no layers"):
        ElhsrConfig.for_model(model, layers=[0], signal="logits")
    for k in (65, 0, None, True):
        with pytest.raises(ValueError, match=f"={k}: expected a number from 1 to the 64 tokens"):
            ElhsrConfig.for_model(model, signal="top_log_probabilities", num_log_probabilities=k)
    with pytest.raises(ValueError, match="Unknown signal 'smell': this version reads hidden_states, logits, top"):
        ElhsrConfig.for_model(model, signal="smell")
    for fields in ({"signal": "logits"}, {"signal": "top_log_probabilities", "num_log_probabilities": 0}):
        with pytest.raises(ValueError, match="of at least 1 and no layers"):
            ElhsrRewardHead(ElhsrConfig(hidden_size=4, **fields))
