"""The pruning rule equals a plain NumPy oracle, never drops the best, and treats every prompt on its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_elhsr import ElhsrConfig
from hf_elhsr.decisions.adaptive import AdaptiveRule
from hf_elhsr.decisions.calibration import Line
from hf_elhsr.decisions.decision import setting_for
from hf_elhsr.decisions.pruning import PruningRule
from hf_elhsr.head.token_outputs import Aggregation, TokenOutputs

SCHEDULE = PruningRule(
    interval=4,
    prefix=[[-1.0, 0.3, 0.2, 0.1], [-1.5, 0.6, 0.3, -0.2], [-0.5, 0.9, 0.1, 0.4]],
    final=[-0.2, 1.1],
    value=[[-1.0, 0.8, -0.5, 0.4, -0.3], [-1.5, 1.0, -0.8, -0.6, -0.2], [-2.0, 1.3, -1.0, 0.5, 0.1]],
    price=0.08,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def oracle(schedule, features, running, pruned, steps):
    """Candidate by candidate, from the equations."""
    dropped = np.zeros(running.shape, dtype=bool)
    for prompt in range(len(running)):
        logits = {}
        for j in range(running.shape[1]):
            check = steps[prompt, j] // schedule.interval - 1
            if pruned[prompt, j] or (running[prompt, j] and check < 0):
                continue
            x = features[prompt, j]
            if running[prompt, j]:
                p = schedule.prefix[min(check, len(schedule.prefix) - 1)]
                logits[j] = p[0] + sum(weight * value for weight, value in zip(p[1:], x, strict=True))
            else:
                logits[j] = schedule.final[0] + schedule.final[1] * x[0]
        for j, logit in logits.items():
            at_check = steps[prompt, j] % schedule.interval == 0
            if running[prompt, j] and at_check and logit < max(logits.values()):
                v = schedule.value[min(steps[prompt, j] // schedule.interval, len(schedule.value)) - 1]
                best = max(logits, key=logits.get)
                score = v[0] + v[1] * logit + v[2] * logits[best]
                if not running[prompt, best]:
                    score += v[3] + v[4] * logits[best]
                dropped[prompt, j] = sigmoid(score) < schedule.price
    return dropped


def case(seed=0, prompts=40, n=6):
    rng = np.random.default_rng(seed)
    state = rng.choice(["running", "finished", "pruned"], p=[0.6, 0.25, 0.15], size=(prompts, n))
    features = rng.normal(size=(prompts, n, 3)) * 2
    steps = rng.integers(1, 24, size=(prompts, n))
    steps[: prompts // 2] = rng.integers(1, 6, size=(prompts // 2, 1)) * 4
    return features, state == "running", state == "pruned", steps


def run(schedule, features, running, pruned, steps):
    tensors = (torch.from_numpy(array) for array in (features, running, pruned, steps))
    return schedule.hopeless(*tensors).numpy()


@pytest.mark.parametrize("price", [0.0, 0.03, 0.08, 0.3, 1.0])
def test_the_rule_equals_the_oracle(price):
    schedule = replace(SCHEDULE, price=price)
    arrays = case()
    dropped = run(schedule, *arrays)
    assert np.array_equal(dropped, oracle(schedule, *arrays))
    assert dropped.any() == (price > 0)
    assert not (dropped & ~arrays[1]).any()


def test_a_candidate_is_always_left():
    features, running, pruned, steps = case(prompts=300)
    running[:], pruned[:], steps[:] = True, False, 8
    features[:20] = features[:20, :1]
    dropped = run(replace(SCHEDULE, price=1.0), features, running, pruned, steps)
    assert (~dropped).any(axis=1).all()
    # Equally good ones stay together
    assert not dropped[:20].any()
    assert (dropped[20:].sum(axis=1) == 5).all()


def test_a_prompt_does_not_depend_on_its_neighbours():
    arrays = case()
    together = run(SCHEDULE, *arrays)
    order = np.random.default_rng(1).permutation(len(together))
    assert np.array_equal(run(SCHEDULE, *(array[order] for array in arrays)), together[order])
    alone = [run(SCHEDULE, *(array[i : i + 1] for array in arrays)) for i in range(len(together))]
    assert np.array_equal(np.concatenate(alone), together)


def test_pruned_candidates_are_left_out_of_the_comparison():
    """A pruned candidate that looked best does not cause others to be dropped, whatever its features, even NaN."""
    features, running, pruned, steps = case()
    before = run(SCHEDULE, features, running, pruned, steps)
    for value in (1e6, np.nan):
        features[pruned] = value
        assert np.array_equal(run(SCHEDULE, features, running, pruned, steps), before)


def test_a_higher_price_never_drops_fewer():
    arrays = case(prompts=200)
    fewer = np.zeros_like(arrays[1])
    for price in (0.01, 0.05, 0.1, 0.5):
        more = run(replace(SCHEDULE, price=price), *arrays)
        assert not (fewer & ~more).any()
        fewer = more


def test_prefix_features_by_hand():
    rewards, gates = np.array([2.0, -1.0, 4.0]), np.array([0.5, 0.25, 0.25])
    aggregation = Aggregation(eps=1e-8, value=False)
    sums = aggregation.summands(TokenOutputs(torch.tensor(rewards), torch.tensor(gates))).sum(dim=0)
    actual = aggregation.prefix_features(sums)
    expected = [(1.0 - 0.25 + 1.0) / 1.0, 5 / 3, np.log(1 / 3)]
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-6)


def test_the_setting_for_a_tolerance_is_that_of_the_largest_not_above_it():
    table = {"0.005": 0.1, "0.01": 0.2, "0.05": 0.3}
    found = [setting_for(table, tolerance, "prune") for tolerance in (0.005, 0.0099, 0.01, 0.04, 0.05, 0.9)]
    assert found == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    for tolerance in (0.001, 0.0, -1, 1.0, float("nan"), True):
        with pytest.raises(ValueError, match=r"prune=.*0\.005, 0\.01, 0\.05"):
            setting_for(table, tolerance, "prune")


def test_heads_without_decisions_say_so():
    config = ElhsrConfig(hidden_size=2, layers=[0])
    for name, message in (("pruning", "no pruning schedule"), ("adaptive", "no settings for adaptive n")):
        with pytest.raises(ValueError, match=message):
            config.fitted(name)


def test_waves_end_where_n_does():
    sampling = AdaptiveRule(3, 0.5, Line(1.0, 0.0))
    assert sampling.wave_ends(8) == [3, 6, 8]
    assert sampling.wave_ends(6) == [3, 6]
    assert sampling.wave_ends(2) == [2]


def test_only_sampled_candidates_can_be_enough():
    sampling = AdaptiveRule(2, 0.6, Line(2.0, -1.0))
    rewards = torch.tensor([[0.71, -1.0, 9.0], [0.69, 0.0, 9.0], [float("nan"), 3.0, 0.0]])
    sampled = torch.tensor([[True, True, False], [True, True, False], [False, True, False]])
    # sigmoid(2 R - 1) passes 0.6 at R = 0.7027
    assert sampling.enough(rewards, sampled).tolist() == [True, False, True]
