"""What is sampled is distributed as transformers samples it: chi-square tests on a tiny vocabulary."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hf_elhsr import enable_best_of_n
from hf_elhsr.generation.next_token import (
    NucleusWarpers,
    PartialTopP,
    _top_of_vocabulary,
    draw_from_nucleus,
    draw_tokens,
    sample_tokens,
)
from tiny_models import ragged_prompts, tiny_head, tiny_model

SAMPLES = 6000


def opinionated_model():
    """A tiny model whose next-token distributions are far from flat, so that settings matter."""
    model = enable_best_of_n(tiny_model())
    with torch.no_grad():
        model.lm_head.weight.mul_(5)
    return model


def counts(tokens: torch.Tensor) -> np.ndarray:
    return np.bincount(tokens.flatten().numpy(), minlength=64)


def assert_same_distribution(own: np.ndarray, expected: np.ndarray) -> None:
    """Chi-square test of homogeneity; the bound is far in the tail, since the seeds are fixed."""
    table = np.stack([own, expected])
    rare = table.sum(0) < 10
    table = np.concatenate([table[:, ~rare], table[:, rare].sum(1, keepdims=True)], axis=1)
    table = table[:, table.sum(0) > 0]
    assert chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.3, "top_k": 0},
        {"temperature": 0.6, "top_k": 0},
        {"top_k": 7},
        {"top_p": 0.7, "top_k": 0},
        {"top_p": 0.9, "top_k": 20, "temperature": 0.8},
        {"min_p": 0.1, "top_k": 0},
    ],
    ids=str,
)
def test_token_frequencies_match_generate(settings):
    """First and second tokens of many samples, compared with generate(num_return_sequences=...)."""
    model = opinionated_model()
    head = tiny_head(model)
    model.generation_config.eos_token_id = 2
    inputs = ragged_prompts(batch=1)
    torch.manual_seed(1)
    expected = model.generate(**inputs, do_sample=True, num_return_sequences=SAMPLES, max_new_tokens=2, **settings)
    torch.manual_seed(2)
    out = model.generate(
        **inputs, best_of_n=SAMPLES, reward_head=head, max_new_tokens=2, return_dict_in_generate=True, **settings
    )
    for position in (9, 10):
        actual = counts(out.candidates[0, :, position])
        assert len(actual.nonzero()[0]) > 3
        assert_same_distribution(actual, counts(expected[:, position]))


def test_the_comparison_can_fail():
    """A negative control: a slightly different temperature is noticed."""
    model = opinionated_model()
    inputs = ragged_prompts(batch=1)
    torch.manual_seed(1)
    expected = model.generate(**inputs, do_sample=True, num_return_sequences=SAMPLES, max_new_tokens=1, top_k=0)
    actual = model.sample_candidates(**inputs, n=SAMPLES, max_new_tokens=1, top_k=0, temperature=1.15)
    with pytest.raises(AssertionError):
        assert_same_distribution(counts(actual.token_ids[0, :, 9]), counts(expected[:, 9]))


def test_draw_tokens_follows_the_softmax():
    torch.manual_seed(0)
    scores = torch.randn(1, 12) * 2
    scores[0, [0, 5, 11]] = -float("inf")
    drawn = np.bincount(draw_tokens(scores.expand(40_000, -1)).numpy(), minlength=12)
    expected = scores[0].double().softmax(-1).numpy()
    assert (drawn[[0, 5, 11]] == 0).all()
    possible = expected > 0
    assert chisquare(drawn[possible], expected[possible] * 40_000).pvalue > 1e-3


@pytest.mark.parametrize("uniform", [0.0, 0.49999997, 0.5, 1 - 2**-24])
def test_draw_tokens_at_the_edges(monkeypatch, uniform):
    """No uniform number selects a token of probability zero, or one past the vocabulary."""
    monkeypatch.setattr(torch, "rand", lambda *size, **kwargs: torch.full(size, uniform))
    inf = float("inf")
    scores = torch.tensor([[-inf, 0.0, -inf, 0.0, -inf], [-inf, -inf, 3.0, -inf, -inf], [0.1, 0.2, 0.3, 0.4, 0.5]])
    tokens = draw_tokens(scores)
    assert torch.isfinite(scores.gather(1, tokens[:, None])).all()


@pytest.mark.parametrize("spread", [0.05, 1.0, 5.0])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.99])
def test_partial_top_p_keeps_what_the_warper_keeps(spread, top_p):
    """Flat rows need the full sort (spread 0.05: thousands of tokens), peaked ones do not."""
    torch.manual_seed(0)
    scores = torch.randn(40, 5000) * spread
    scores[::3, 7] = -float("inf")
    warper = TopPLogitsWarper(top_p)
    expected, actual = warper(None, scores), PartialTopP(warper)(torch.zeros(40, 1), scores)
    kept_by_one = torch.isfinite(expected) != torch.isfinite(actual)
    # Sums are rounded in a different order, so a token on the boundary may fall on the other side
    assert kept_by_one.sum(-1).max() <= 1
    assert kept_by_one.sum() <= 2
    both = torch.isfinite(expected) & torch.isfinite(actual)
    assert torch.equal(expected[both], actual[both])
    assert both.any(-1).all()


WARPERS = {
    "top-p": [TopPLogitsWarper(0.9)],
    "temperature, top-p": [TemperatureLogitsWarper(0.5), TopPLogitsWarper(0.8)],
    "high temperature, top-p": [TemperatureLogitsWarper(1.5), TopPLogitsWarper(0.6)],
    "temperature, top-k": [TemperatureLogitsWarper(1.4), TopKLogitsWarper(12)],
    "temperature, top-k, top-p": [TemperatureLogitsWarper(1.2), TopKLogitsWarper(20), TopPLogitsWarper(0.7)],
    "temperature": [TemperatureLogitsWarper(0.7)],
    "top-p, min-p": [TopPLogitsWarper(0.95), MinPLogitsWarper(0.05)],
}


@pytest.mark.parametrize("spread", [0.3, 1.5, 3.0], ids=["flat", "middling", "peaked"])
@pytest.mark.parametrize("warpers", WARPERS)
def test_sampled_tokens_follow_the_warped_softmax(warpers, spread):
    """A vocabulary of many blocks and a remainder; flat rows need the full sort, the others a partial one or none."""
    torch.manual_seed(0)
    logits = torch.randn(1, 12_345) * spread
    # bfloat16 logits tie often, also at the boundary of top-k
    logits = logits.bfloat16().float()
    processors = LogitsProcessorList(WARPERS[warpers])
    expected = processors(torch.zeros(1, 1, dtype=torch.long), logits.clone())[0].double().softmax(-1).numpy()
    drawn = np.zeros(12_345)
    for _ in range(40):
        rows = logits.expand(250, -1).clone()
        tokens, scores = sample_tokens(processors, torch.zeros(250, 1, dtype=torch.long), rows, do_sample=True)
        assert scores is None
        drawn += np.bincount(tokens.numpy(), minlength=12_345)
    # Which of the tokens that tie at the boundary of top-p are kept is not specified
    boundary = logits[0].numpy()[expected > 0].min()
    assert (logits[0].numpy()[(expected == 0) & (drawn > 0)] == boundary).all()
    # Forty bins of neighbouring tokens, of about equal probability
    order = np.argsort(expected, kind="stable")
    places = np.minimum((expected[order].cumsum() * 40).astype(int), 39)
    counted, wanted = (np.bincount(places, weights=values[order], minlength=40) for values in (drawn, expected))
    wide_enough = wanted * drawn.sum() >= 8
    assert wide_enough.sum() > 1
    counted, wanted = counted[wide_enough], wanted[wide_enough]
    assert chisquare(counted, wanted / wanted.sum() * counted.sum()).pvalue > 1e-4


def test_sampled_tokens_are_those_of_the_warpers_one_by_one_when_scores_are_wanted():
    torch.manual_seed(0)
    logits = torch.randn(6, 9000)
    processors = LogitsProcessorList(WARPERS["temperature, top-k, top-p"])
    ids = torch.zeros(6, 1, dtype=torch.long)
    tokens, scores = sample_tokens(processors, ids, logits.clone(), do_sample=True, keep_scores=True)
    assert torch.equal(scores, processors(ids, logits.clone()))
    assert torch.isfinite(scores.gather(1, tokens[:, None])).all()
    greedy, _ = sample_tokens(processors, ids, logits.clone(), do_sample=False)
    assert torch.equal(greedy, logits.argmax(-1))


def test_ties_at_the_boundary_of_top_k_need_the_full_sort():
    """The warper keeps all tokens that tie with the k-th, even more than the fused draw reads."""
    logits = torch.zeros(4, 40_000)
    logits[0, :5] = 4.0
    logits[1, :100] = 4.0
    logits[2, :1000] = 4.0
    _, wide = draw_from_nucleus(logits, NucleusWarpers(top_k=5))
    assert wide.tolist() == [2, 3]
    torch.manual_seed(0)
    tokens, _ = sample_tokens(
        LogitsProcessorList([TopKLogitsWarper(5)]), torch.zeros(4, 1).long(), logits, do_sample=True
    )
    assert tokens[0] < 5
    assert tokens[1] < 100
    assert tokens[2] < 1000


@pytest.mark.parametrize("vocabulary", [50, 8192, 20_011])
def test_top_of_vocabulary_is_topk(vocabulary):
    torch.manual_seed(0)
    scores = torch.randn(7, vocabulary)
    top, places = _top_of_vocabulary(scores, 64)
    expected = scores.topk(min(64, vocabulary), dim=-1)
    assert torch.equal(top, expected.values)
    assert torch.equal(places, expected.indices)


def test_nan_and_forbidden_vocabularies_are_refused():
    processors = LogitsProcessorList([TopPLogitsWarper(0.9)])
    for value in (float("nan"), -float("inf")):
        logits = torch.zeros(2, 10_000)
        logits[1] = value
        with pytest.raises(ValueError, match="NaN or no token left"):
            sample_tokens(processors, torch.zeros(2, 1).long(), logits.clone(), do_sample=True)


def test_only_plain_warpers_are_fused():
    class Own(TopPLogitsWarper):
        pass

    plain = [TemperatureLogitsWarper(0.5), TopKLogitsWarper(7), TopPLogitsWarper(0.9)]
    assert NucleusWarpers.at_the_end_of(LogitsProcessorList(plain)) == (0, NucleusWarpers(0.5, 7, 0.9))
    assert NucleusWarpers.at_the_end_of(LogitsProcessorList([*plain, MinPLogitsWarper(0.1)])) is None
    assert NucleusWarpers.at_the_end_of(LogitsProcessorList([Own(0.9)])) is None
    assert NucleusWarpers.at_the_end_of(LogitsProcessorList([TemperatureLogitsWarper(0.5)])) is None
    assert NucleusWarpers.at_the_end_of(LogitsProcessorList([TopPLogitsWarper(0.9, min_tokens_to_keep=3)])) is None
    assert NucleusWarpers.at_the_end_of(LogitsProcessorList([TopPLogitsWarper(0.9), plain[0]])) is None
