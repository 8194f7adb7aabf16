"""Losses compared with their equations, worked out rollout by rollout in float64."""

import math

import pytest
import torch

from hf_elhsr.training.losses import LOSSES, binary_cross_entropy, dpo, hinge, info_nca, nca

REWARDS = torch.tensor([0.5, -1.0, 2.0, 0.25, -0.5])
LABELS = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0])
PROMPTS = torch.tensor([7, 7, 7, 3, 3])


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def log_softmax(values):
    total = math.log(sum(math.exp(value) for value in values))
    return [value - total for value in values]


def by_prompt():
    for prompt in (7, 3):
        own = [i for i in range(5) if PROMPTS[i] == prompt]
        yield [float(REWARDS[i]) for i in own], [float(LABELS[i]) for i in own]


def test_binary_cross_entropy_by_hand():
    each = [-log_sigmoid(r) if y else -log_sigmoid(-r) for r, y in zip(REWARDS.tolist(), LABELS.tolist(), strict=True)]
    assert float(binary_cross_entropy(REWARDS, LABELS)) == pytest.approx(sum(each) / 5)


def test_hinge_by_hand():
    # 1 - 0.5, 1 - 1 = 0, 1 + 2, 1 - 0.25, 1 + 0.5
    assert float(hinge(REWARDS, LABELS)) == pytest.approx((0.5 + 0 + 3 + 0.75 + 1.5) / 5)


def test_dpo_by_hand():
    # The second prompt has no incorrect rollout, so no pair; prompts are never mixed
    pairs = [-log_sigmoid(0.5 + 1.0), -log_sigmoid(0.5 - 2.0)]
    assert float(dpo(REWARDS, LABELS, PROMPTS)) == pytest.approx(sum(pairs) / 2)


def test_dpo_without_pairs_is_zero_and_has_a_gradient():
    rewards = REWARDS.clone().requires_grad_()
    loss = dpo(rewards, torch.ones(5), PROMPTS)
    loss.backward()
    assert float(loss) == 0
    assert rewards.grad.abs().sum() == 0


@pytest.mark.parametrize("alpha", [0.01, 0.5, 5.0])
def test_info_nca_by_hand(alpha):
    total = 0.0
    for rewards, labels in by_prompt():
        weights = [math.exp(w) for w in log_softmax([y / alpha for y in labels])]
        total -= sum(w * p for w, p in zip(weights, log_softmax(rewards), strict=True))
    assert float(info_nca(REWARDS, LABELS, PROMPTS, alpha)) == pytest.approx(total / 2, rel=1e-5)


@pytest.mark.parametrize("alpha", [0.01, 0.5, 5.0])
def test_nca_by_hand(alpha):
    total = 0.0
    for rewards, labels in by_prompt():
        weights = [math.exp(w) for w in log_softmax([y / alpha for y in labels])]
        pairs = zip(weights, rewards, strict=True)
        total -= sum(w * log_sigmoid(r) + log_sigmoid(-r) / len(rewards) for w, r in pairs)
    assert float(nca(REWARDS, LABELS, PROMPTS, alpha)) == pytest.approx(total / 2, rel=1e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_falls_when_the_correct_rollouts_gain(name):
    rewards = torch.zeros(5, requires_grad=True)
    LOSSES[name].function(rewards, torch.tensor([1.0, 0, 0, 1, 0]), PROMPTS).backward()
    assert (rewards.grad[[0, 3]] < 0).all()
    assert (rewards.grad[[1, 2, 4]] > 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_order_of_rollouts_does_not_matter(name):
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    shuffled = LOSSES[name].function(REWARDS[order], LABELS[order], PROMPTS[order])
    torch.testing.assert_close(LOSSES[name].function(REWARDS, LABELS, PROMPTS), shuffled)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_large_rewards_do_not_overflow(name):
    rewards = (1e4 * REWARDS).requires_grad_()
    loss = LOSSES[name].function(rewards, LABELS, PROMPTS)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(rewards.grad).all()
