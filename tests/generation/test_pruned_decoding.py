"""Pruning, adaptive n, abstention and max_parallel while decoding: the laws hold, and pruned candidates are marked."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_elhsr import RunningReward, enable_best_of_n
from oracle import assert_rewards_close, oracle_rewards
from tiny_models import CONFIGS, ragged_prompts, tiny_head, tiny_model

LINE = {"slope": 1.0, "offset": 0.0}


def decisive(head, price=0.2, threshold=0.6, n=6, interval=2, wave_price=0.0):
    """The head with hand-made settings."""
    head.config.calibration = {**LINE, "winner": {"slope": 2.0, "offset": 0.5}, "n": n, "prompts": 100}
    head.config.pruning = {
        "interval": interval,
        "prefix": [[0.0, 1.0] + [0.0] * (head.aggregation.num_prefix_features - 1)],
        "final": [0.0, 1.0],
        "value": [[0.0, 3.0, -3.0, 0.0, 0.0]],
        "prices": {"0.01": price},
        "n": n,
        "prompts": 100,
    }
    head.config.adaptive = {
        "wave": 2,
        "thresholds": {"0.01": threshold},
        "prices": {"0.01": wave_price},
        "n": n,
        "prompts": 100,
    }
    return head


def generate(model, head, inputs, seed=0, **kwargs):
    torch.manual_seed(seed)
    settings = {"best_of_n": 6, "max_new_tokens": 14, "return_dict_in_generate": True} | kwargs
    return model.generate(**inputs, reward_head=head, **settings)


def sampled(out):
    return out.lengths > 0


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "mamba", "lfm2"])
@pytest.mark.parametrize(
    "kwargs", [{"prune": 0.01}, {"adaptive": 0.01}, {"max_parallel": 5}, {"adaptive": 0.01, "max_parallel": 4}], ids=str
)
def test_the_central_law_holds_in_every_mode(architecture, kwargs):
    """Rewards are those of the returned token ids, whole or cut short."""
    model = enable_best_of_n(tiny_model(architecture))
    head, inputs = decisive(tiny_head(model), wave_price=0.1), ragged_prompts()
    out = generate(model, head, inputs, **kwargs)
    expected = oracle_rewards(model, head, _only(out, sampled(out)), inputs)
    begun = sampled(out).numpy()
    assert_rewards_close(out.rewards[sampled(out)], expected[begun])
    assert torch.isneginf(out.rewards[~sampled(out)]).all()
    rows = torch.arange(3)
    winner = out.winners[:, 0]
    assert not out.pruned[rows, winner].any()
    eligible = out.rewards.masked_fill(out.pruned, -torch.inf)
    assert torch.equal(winner, eligible.argmax(-1))
    if kwargs.keys() != {"max_parallel"}:
        assert out.pruned.any()


def _only(out, begun):
    """The oracle needs at least one token of each: candidates that never started get one, and are ignored."""
    changed = copy.copy(out)
    changed["lengths"] = out.lengths.clamp_min(1)
    return changed


def test_a_price_of_zero_changes_nothing(model, head, inputs):
    head = decisive(head, price=0.0)
    exact, unpruned = generate(model, head, inputs), generate(model, head, inputs, prune=0.01)
    assert torch.equal(exact.candidates, unpruned.candidates)
    # Up to rounding: pruning reads rewards early, so that tokens are summed in different groups
    assert_rewards_close(exact.rewards, unpruned.rewards)
    assert not unpruned.pruned.any()


def test_a_high_price_leaves_the_best_at_the_first_check(model, head, inputs):
    """Every running candidate but the best is dropped after exactly `interval` tokens."""
    out = generate(model, decisive(head, price=1.0, interval=3), inputs, prune=0.01)
    assert (out.lengths[out.pruned] % 3 == 0).all()
    assert ((~out.pruned).sum(-1) >= 1).all()
    whole = (~out.pruned) & (out.lengths > 3)
    assert (whole.sum(-1) <= 1).all()
    # a pruned candidate's tokens end where it was stopped
    row, column = (int(i) for i in out.pruned.nonzero()[0])
    assert (out.candidates[row, column, 9 + int(out.lengths[row, column]) :] == 0).all()


def test_pruned_candidates_are_those_of_the_rule(model, head, inputs):
    """Replayed from token rewards, with the rule written out in NumPy: which are dropped, and when."""
    head = decisive(head, price=0.3)
    out = generate(model, head, inputs, prune=0.01, output_token_rewards=True)
    rewards, gates = out.token_rewards.double().numpy(), out.token_gates.double().numpy()
    lengths = out.lengths.numpy()
    for prompt in range(3):
        gone = np.zeros(6, dtype=bool)
        for t in range(2, lengths[prompt].max() + 1, 2):
            seen = np.minimum(lengths[prompt], t)
            z = np.array(
                [
                    (gates[prompt, c, :s] * rewards[prompt, c, :s]).sum() / gates[prompt, c, :s].sum()
                    for c, s in enumerate(seen)
                ]
            )
            z[gone] = -np.inf
            ended = (lengths[prompt] <= t) & ~out.pruned[prompt].numpy() | (lengths[prompt] < t)
            lost = 1 / (1 + np.exp(-(3 * z - 3 * z.max())))
            dropped = ~gone & ~ended & (z < z.max()) & (lost < 0.3)
            actual = out.pruned[prompt].numpy() & (lengths[prompt] == t)
            assert (dropped == actual).all()
            gone |= dropped
        assert (gone == out.pruned[prompt].numpy()).all()


def test_adaptive_n_prunes_inside_its_waves(model, head, inputs):
    """No candidate is ever trusted, so those that were stopped were hopeless: at a check, with a better rival."""
    pruned = generate(model, decisive(head, threshold=1.0, wave_price=0.3), inputs, adaptive=0.01)
    assert sampled(pruned).all()
    assert pruned.pruned.any()
    assert (pruned.lengths[pruned.pruned] % 2 == 0).all()
    assert not pruned.pruned[torch.arange(3), pruned.winners[:, 0]].any()


def test_waves_stop_once_a_candidate_is_trusted(model, head, inputs):
    never = generate(model, decisive(head, threshold=1.0), inputs, adaptive=0.01)
    assert sampled(never).all()
    assert not never.pruned.any()
    at_once = generate(model, decisive(head, threshold=0.0), inputs, adaptive=0.01)
    assert sampled(at_once).sum(-1).tolist() == [2, 2, 2]
    # A candidate that is still running when the first one finishes is cut there
    assert (at_once.lengths[:, 0] == at_once.lengths[:, 1]).all()
    assert at_once.pruned.any()
    assert ((~at_once.pruned) & sampled(at_once)).any(-1).all()
    between = generate(model, decisive(head, threshold=0.6), inputs, adaptive=0.01)
    trusted = torch.sigmoid(2 * between.rewards + 0.5) >= 0.6
    finished = sampled(between) & ~between.pruned
    for row in range(3):
        count = int(sampled(between)[row].sum())
        assert count in (2, 4, 6)
        assert count == 6 or bool((trusted & finished)[row, count - 2 : count].any())
        assert not (trusted & finished)[row, : count - 2].any()


def test_max_parallel_bounds_the_batch(model, head, inputs):
    rows = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    out = generate(model, head, inputs, max_parallel=4)
    handle.remove()
    assert rows[0] == 3
    assert max(rows[1:]) == 4
    assert (out.lengths > 0).all()


def test_max_parallel_with_everything_else(model, head, inputs):
    """Step records, token rewards and hidden states are assembled from all parts."""
    asked = {"output_scores": True, "output_hidden_states": True, "output_token_rewards": True, "output_logits": True}
    out = generate(model, head, inputs, max_parallel=4, num_return_sequences=2, **asked)
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))
    products = out.token_rewards.double() * out.token_gates.double()
    torch.testing.assert_close(out.rewards.double(), products.sum(-1) / out.token_gates.double().sum(-1))
    assert ((out.token_gates > 0).sum(-1) == out.lengths).all()
    # the returned logits are those that the returned tokens were drawn from
    tokens = out.sequences[:, 9:]
    for row, winner in enumerate(out.winners.flatten().tolist()):
        for step in range(int(out.lengths[row // 2, winner])):
            assert out.scores[step][row, tokens[row, step]] > -torch.inf
            with torch.no_grad():
                prompt = inputs["input_ids"][row // 2, 2 * (row // 2) :]
                ids = torch.cat([prompt, tokens[row, :step]])[None]
                expected = model(input_ids=ids).logits[0, -1]
            torch.testing.assert_close(out.logits[step][row], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_parts_do_not_disturb_each_other(architecture):
    """Greedy decoding gives every candidate the same tokens, whichever part it is in."""
    model = enable_best_of_n(tiny_model(architecture))
    head, inputs = tiny_head(model), ragged_prompts()
    whole, parts = (generate(model, head, inputs, top_k=1, max_parallel=m) for m in (None, 2))
    assert torch.equal(whole.candidates, parts.candidates)
    torch.testing.assert_close(whole.rewards, parts.rewards)


def test_a_trusted_prompt_starts_no_candidate_in_later_parts(model, head, inputs):
    """One candidate at a time: the first to finish is trusted at once, and the others of its wave never start."""
    out = generate(model, decisive(head, threshold=0.0), inputs, adaptive=0.01, max_parallel=1)
    assert sampled(out).sum(-1).tolist() == [1, 1, 1]
    assert not out.pruned.any()


@pytest.mark.parametrize("kwargs", [{"adaptive": 0.01}, {"max_parallel": 2}], ids=str)
def test_max_time_would_cut_the_candidates_that_start_last(model, head, inputs, kwargs):
    with pytest.raises(ValueError, match="max_time would cut the last"):
        generate(model, decisive(head), inputs, max_time=60.0, **kwargs)
    assert generate(model, decisive(head), inputs, max_time=60.0, prune=0.01).pruned.any()


def test_records_are_zero_past_a_winners_end(model, head, inputs):
    asked = {"output_hidden_states": True, "output_logits": True, "output_scores": True}
    out = generate(model, head, inputs, num_return_sequences=3, **asked)
    lengths = out.lengths.gather(1, out.winners).flatten()
    assert len(lengths.unique()) > 2
    for row, length in enumerate(lengths.tolist()):
        for step in range(int(lengths.max())):
            ended = step >= length
            assert bool((out.logits[step][row] == 0).all()) == ended
            assert bool((out.hidden_states[step][-1][row] == 0).all()) == ended


def test_confidence_and_abstention(model, head, inputs, caplog):
    out = generate(model, decisive(head), inputs)
    best = out.rewards.amax(-1)
    torch.testing.assert_close(out.confidence, torch.sigmoid(2 * best + 0.5))
    assert out.abstained is None
    threshold = float(out.confidence.sort().values[1])
    marked = generate(model, head, inputs, min_confidence=threshold)
    assert marked.abstained.tolist() == (out.confidence < threshold).tolist()
    assert 0 < marked.abstained.sum() < 3
    head.config.calibration = None
    assert generate(model, head, inputs).confidence is None


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_architecture_prunes(architecture):
    model = enable_best_of_n(tiny_model(architecture))
    head, inputs = decisive(tiny_head(model), price=0.4), ragged_prompts()
    out = generate(model, head, inputs, prune=0.01)
    assert out.pruned.any()
    assert_rewards_close(out.rewards, oracle_rewards(model, head, out, inputs))


def test_a_head_with_values_keeps_their_sums(model, inputs):
    """V_t is the plain mean of v_t = u h_t + c, computed from one plain forward pass; R does not change."""
    plain, valued = decisive(tiny_head(model)), decisive(tiny_head(model, value=True))
    with torch.no_grad():
        valued.value_weight.copy_(torch.randn_like(valued.value_weight) * 0.1)
        valued.value_bias.fill_(0.3)
    torch.testing.assert_close(generate(model, valued, inputs).rewards, generate(model, plain, inputs).rewards)
    running = RunningReward(valued, keep_tokens=True)
    torch.manual_seed(0)
    candidates = model.sample_candidates(**inputs, n=3, signal_processor=[running], max_new_tokens=12)
    for prompt in range(3):
        for candidate in range(3):
            completion = candidates.completion(prompt, candidate)
            ids = torch.cat([inputs["input_ids"][prompt, 2 * prompt :], completion])[None]
            with torch.no_grad():
                states = model(input_ids=ids, output_hidden_states=True).hidden_states
            features = torch.cat([states[layer][0, -len(completion) :] for layer in valued.config.layers], dim=-1)
            values = features.double().numpy() @ valued.value_weight[0].detach().double().numpy() + 0.3
            row = 3 * prompt + candidate
            np.testing.assert_allclose(running.token_values[row, : len(completion)], values, atol=1e-4)
            np.testing.assert_allclose(running.prefix_features[row, 3], values.mean(), atol=1e-4)
    valued.config.pruning = replace(valued.config.pruning, prefix=[[0.0, 0.0, 0.0, 0.0, 1.0]])
    assert generate(model, valued, inputs, prune=0.01).pruned.any()


def test_candidates_that_have_not_started_are_not_rivals(model, head, inputs):
    """Some of a prompt's candidates start later; until then the others must not be compared with them."""
    head = decisive(head, price=1.0)
    head.config.pruning = replace(head.config.pruning, final=[50.0, 0.0])
    out = generate(model, head, inputs, prune=0.01, max_parallel=4)
    # in parts of four, the prompts start with 4, 2 and 4 candidates, the best of which is kept
    for prompt, first in enumerate((4, 2, 4)):
        assert not out.pruned[prompt, :first].all()
    assert out.pruned.any()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_parallel": 0}, "max_parallel=0: expected a whole number"),
        ({"max_parallel": 2.5}, "max_parallel=2.5: expected a whole number"),
        ({"prune": 0.001}, "expected how much accuracy may be given up"),
        ({"prune": 1.5}, "expected how much accuracy may be given up"),
        ({"adaptive": -1}, "expected how much accuracy may be given up"),
        ({"prune": True}, "expected how much accuracy may be given up"),
        ({"min_confidence": 1.2}, "a probability between 0 and 1"),
        ({"min_confidence": True}, "a probability between 0 and 1"),
        ({"prune": 0.01, "num_return_sequences": 2}, "leave out prune, or num_return_sequences=2"),
        ({"adaptive": 0.01, "num_return_sequences": 2}, "leave out adaptive"),
    ],
    ids=str,
)
def test_invalid_settings_are_refused(model, head, inputs, kwargs, message):
    with pytest.raises(ValueError, match=message):
        generate(model, decisive(head), inputs, **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"prune": 0.01}, "no pruning schedule"),
        ({"adaptive": 0.01}, "no settings for adaptive n"),
        ({"min_confidence": 0.5}, "no calibration"),
    ],
    ids=str,
)
def test_a_head_without_decisions_is_refused(model, head, inputs, kwargs, message):
    with pytest.raises(ValueError, match=message):
        generate(model, head, inputs, **kwargs)


@pytest.mark.parametrize("kwargs", [{"prune": 0.01}, {"adaptive": 0.01}, {"max_parallel": 2}], ids=str)
def test_options_that_need_leaving_rows_are_refused_where_rows_cannot_leave(model, head, inputs, kwargs):
    """A processor that may keep state per row, and a compiled step, need all rows to stay."""
    from transformers import LogitsProcessor

    class Own(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores

    with pytest.raises(ValueError, match="Own may keep state per row: leave out one"):
        generate(model, decisive(head), inputs, logits_processor=[Own()], **kwargs)


def test_without_best_of_n_they_are_refused(model, inputs):
    for name in ("prune", "adaptive", "min_confidence", "max_parallel"):
        with pytest.raises(ValueError, match=f"{name} passed without best_of_n"):
            model.generate(**inputs, **{name: 1})


def test_prune_and_adaptive_exclude_each_other(model, head, inputs):
    with pytest.raises(ValueError, match="adaptive already prunes candidates within its waves: pass only one"):
        generate(model, decisive(head), inputs, prune=0.01, adaptive=0.01)


def test_a_price_for_waves_without_a_pruning_schedule_is_refused_as_damaged(model, head, inputs):
    decisive(head, wave_price=0.1).config.pruning = None
    with pytest.raises(ValueError, match=r"damaged adaptive: a price of 0\.1 but no pruning schedule"):
        generate(model, head, inputs, adaptive=0.01)
