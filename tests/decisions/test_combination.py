"""Combinations: worked out by hand, laws that hold for any rewards, and what is refused."""

import numpy as np
import pytest
import torch

from hf_elhsr import LearnedCombination, fit_combination
from hf_elhsr.decisions.selection import COMBINATIONS, min_max, worse_of_ranks


def rewards(*sources):
    """(1, n, sources) of one prompt."""
    return torch.tensor(sources).T[None]


def test_worse_of_ranks_by_hand():
    # Ranks 1 2 3 4 and 4 2 1 3: the worse ones are 4 2 3 4
    assert worse_of_ranks(rewards([9.0, 3.0, 2.0, 1.0], [0.0, 0.5, 0.9, 0.1])).tolist() == [[-4, -2, -3, -4]]


def test_equal_rewards_share_the_better_rank():
    # Ranks 1 1 3 and 2 3 1
    assert worse_of_ranks(rewards([5.0, 5.0, 1.0], [2.0, 1.0, 3.0])).tolist() == [[-2, -3, -3]]


def test_min_max_by_hand():
    assert min_max(rewards([10.0, 30.0, 20.0], [-1.0, -2.0, 0.0])).tolist() == [[0.5, 1.0, 1.5]]


def test_min_max_of_rewards_far_from_zero_and_of_a_source_without_a_preference():
    assert min_max(rewards([1e6, 1e6 + 1, 1e6 + 0.5], [7.0, 7.0, 7.0])).tolist() == [[0.0, 1.0, 0.5]]


@pytest.mark.parametrize("name", COMBINATIONS)
def test_scales_other_prompts_and_orders_do_not_matter(name):
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(5, 6, 3, generator=generator)
    combined = COMBINATIONS[name](given)
    moved = given * torch.tensor([0.1, 1.0, 40.0]) + torch.tensor([3.0, 0.0, -2.0])
    torch.testing.assert_close(COMBINATIONS[name](moved), combined, rtol=0, atol=1e-4)
    torch.testing.assert_close(COMBINATIONS[name](given[2:3]), combined[2:3])
    order = torch.randperm(6, generator=generator)
    torch.testing.assert_close(COMBINATIONS[name](given[:, order]), combined[:, order])
    torch.testing.assert_close(COMBINATIONS[name](given[..., [2, 0, 1]]), combined)
    # The control: a combination depends on every source
    for source in range(3):
        other = given.clone()
        other[..., source] = torch.randn(5, 6, generator=generator)
        assert not torch.equal(COMBINATIONS[name](other), combined)


def test_a_learned_combination_finds_the_weights_that_made_the_labels():
    generator = np.random.default_rng(0)
    given = generator.normal(size=(4000, 8, 3)) * [1.0, 10.0, 1.0] + [0.0, 5.0, 0.0]
    logits = 1.5 * given[..., 0] + 0.1 * given[..., 1] - 1.0
    labels = generator.random(logits.shape) < 1 / (1 + np.exp(-logits))
    fitted = fit_combination(given, labels)
    np.testing.assert_allclose(fitted.weights, [1.5, 0.1, 0.0], atol=0.05)
    assert fitted.intercept == pytest.approx(-1.0, abs=0.08)
    # As `generate` returns them
    assert fit_combination(torch.from_numpy(given), torch.from_numpy(labels)) == fitted
    applied = fitted(torch.from_numpy(given[:2]).float())
    expected = given[:2] @ np.array(fitted.weights) + fitted.intercept
    np.testing.assert_allclose(applied.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_learned_combination_refuses_mismatched_shapes_and_labels_of_one_class():
    with pytest.raises(ValueError, match="fitted on 2 sources, and 3 are given"):
        LearnedCombination((1.0, 2.0), 0.0)(torch.zeros(1, 4, 3))
    with pytest.raises(ValueError, match=r"\(prompts, n, sources\)"):
        fit_combination(np.zeros((3, 4, 2)), np.zeros((3, 5)))
    with pytest.raises(ValueError, match="targets of both kinds"):
        fit_combination(np.zeros((3, 4, 2)), np.ones((3, 4)))
