"""Calibration: maximum likelihood compared with scipy, true parameters recovered, and what cannot be calibrated."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from hf_elhsr import ElhsrConfig
from hf_elhsr.decisions.calibration import Calibration, Line
from hf_elhsr.decisions.fit import fit_line
from hf_elhsr.decisions.logistic import fit_logistic


def drawn(rows=2000, seed=0, slope=0.6, offset=-1.0):
    rng = np.random.default_rng(seed)
    rewards = rng.normal(scale=3.0, size=rows)
    return rewards, rng.random(rows) < 1 / (1 + np.exp(-(slope * rewards + offset)))


def test_the_fit_is_the_maximum_of_the_likelihood():
    rewards, labels = drawn()
    correct, incorrect = labels.sum(), (~labels).sum()
    targets = np.where(labels, (correct + 1) / (correct + 2), 1 / (incorrect + 2))

    def loss(parameters):
        logits = parameters[0] * rewards + parameters[1]
        return np.sum(np.logaddexp(0, logits) - targets * logits)

    expected = minimize(loss, [1.0, 0.0], method="BFGS").x
    fitted = fit_line(rewards, labels)
    assert [fitted.slope, fitted.offset] == pytest.approx(expected, rel=1e-4)
    assert [fitted.slope, fitted.offset] == pytest.approx([0.6, -1.0], abs=0.15)


def test_probabilities_are_those_of_the_equation():
    rewards = torch.tensor([[-50.0, 0.0, 2.0]])
    expected = 1 / (1 + np.exp(-(0.5 * rewards.numpy() - 1)))
    np.testing.assert_allclose(Line(0.5, -1.0).probability(rewards).numpy(), expected, rtol=1e-5)


def test_rewards_that_separate_the_labels_have_a_finite_slope():
    fitted = fit_line(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True]))
    assert 0 < fitted.slope < 10


@pytest.mark.parametrize(
    ("rewards", "labels", "message"),
    [
        ([1.0, 2.0], [True, True], "got 2 and 0: use more prompts"),
        ([1.0, 2.0, 3.0, 4.0], [True, True, False, False], "slope of -"),
        ([1.0, np.nan], [True, False], "finite"),
    ],
)
def test_refuses_what_cannot_be_calibrated(rewards, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_line(np.array(rewards), np.array(labels))


def test_ridge_regression_against_scipy_and_a_feature_that_never_varies():
    rng = np.random.default_rng(1)
    features = np.c_[rng.normal(5, 100, 400), rng.normal(0, 0.01, 400), np.full(400, 7.0)]
    targets = (rng.random(400) < 1 / (1 + np.exp(-features[:, 0] / 100))).astype(float)
    z = (features[:, :2] - features[:, :2].mean(0)) / features[:, :2].std(0)

    def loss(p):
        logits = p[0] + z @ p[1:]
        return np.sum(np.logaddexp(0, logits) - targets * logits) + 1.5 * p[1:] @ p[1:]

    best = minimize(loss, np.zeros(3), options={"gtol": 1e-9}).x
    fitted = fit_logistic(features, targets, ridge=3.0)
    np.testing.assert_allclose(fitted[0] + features @ fitted[1:], best[0] + z @ best[1:], atol=1e-4)
    assert fitted[3] == 0


def test_a_head_without_calibration_says_so():
    config = ElhsrConfig(hidden_size=2, layers=[0])
    with pytest.raises(ValueError, match="no calibration"):
        config.fitted("calibration")
    config.calibration = {"slope": 1.0, "offset": 0.0, "winner": {"slope": 0.5, "offset": -1.0}, "n": 8, "prompts": 9}
    assert config.fitted("calibration") == Calibration(1.0, 0.0, Line(0.5, -1.0), 8, 9)
    assert config.calibration.candidate == Line(1.0, 0.0)
