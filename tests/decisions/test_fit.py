"""Decisions fitted on held-out prompts keep their tolerance on unseen ones; a misleading head gets no decisions."""

import numpy as np
import pytest

from hf_elhsr import ElhsrConfig
from hf_elhsr.decisions.calibration import Line
from hf_elhsr.decisions.decision import TOLERANCES
from hf_elhsr.decisions.fit import accuracy_loss, fit_decisions, fit_pruning_rule
from hf_elhsr.decisions.replay import Replay, replay_adaptive, replay_exact, replay_pruning
from made_rollouts import made_rollouts


@pytest.fixture(scope="module")
def fitted():
    return fit_decisions(made_rollouts(prompts=500, n=8))


def adaptive_rule(fitted, tolerance):
    return fitted["adaptive"].rule(tolerance, fitted["calibration"].winner)


def test_decisions_are_fields_of_a_config_that_survive_saving(fitted, tmp_path):
    config = ElhsrConfig(hidden_size=2, layers=[0], **fitted)
    config.save_pretrained(tmp_path)
    loaded = ElhsrConfig.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in fitted} == fitted
    for name in fitted:
        assert fitted[name].n == 8
        assert fitted[name].prompts == 500


def test_a_larger_tolerance_saves_more(fitted):
    prices = [fitted["pruning"].prices[str(tolerance)] for tolerance in TOLERANCES]
    assert prices == sorted(prices)
    assert prices[0] < prices[-1]
    scored = made_rollouts(prompts=500, n=8)
    tokens = []
    for wanted in TOLERANCES:
        sampling = adaptive_rule(fitted, wanted)
        tokens.append(replay_adaptive(scored, [sampling], sampling.pruning_rule(fitted["pruning"]))[0].tokens.sum())
    assert tokens == sorted(tokens, reverse=True)
    assert tokens[-1] < 0.75 * tokens[0]


def test_unseen_prompts_lose_no_more_than_was_asked_for(fitted):
    unseen = made_rollouts(prompts=4000, n=8, seed=1)
    exact = replay_exact(unseen)
    for wanted in TOLERANCES:
        pruned = replay_pruning(unseen, fitted["pruning"].rule(wanted))
        sampling = adaptive_rule(fitted, wanted)
        schedule = sampling.pruning_rule(fitted["pruning"])
        for replay in (pruned, *replay_adaptive(unseen, [sampling], schedule, orders=2)):
            lost = exact.correct - replay.correct
            assert lost.mean() - 2 * lost.std() / len(lost) ** 0.5 < wanted
            assert replay.tokens.sum() <= exact.tokens.sum()
        if wanted == 0.05:
            assert replay.tokens.sum() < 0.8 * exact.tokens.sum()


def test_winners_are_calibrated_apart_from_candidates(fitted):
    """A maximum is optimistic, so the calibration of single candidates would overrate winners."""
    unseen = made_rollouts(prompts=4000, n=8, seed=2)
    exact = replay_exact(unseen)
    winner = fitted["calibration"].winner
    confidence = 1 / (1 + np.exp(-(winner.slope * exact.winner_rewards + winner.offset)))
    assert confidence.mean() == pytest.approx(exact.correct.mean(), abs=0.04)


def test_a_head_that_ranks_in_reverse_gets_no_decisions():
    """The negative control."""
    scored = made_rollouts(prompts=400, n=4, signal=-1.0)
    assert fit_decisions(scored) == {"calibration": None, "pruning": None, "adaptive": None}


def test_too_few_prompts_raise_no_error():
    fields = fit_decisions(made_rollouts(prompts=3, n=2))
    assert fields["pruning"] is None


def test_accuracy_loss_by_hand():
    """Two of 100 prompts are lost by labels; calibrated P falls by 0.1 for one prompt in ten."""
    correct = np.ones(100)
    exact = Replay(np.ones(100), correct, np.zeros(100))
    lost_two = correct.copy()
    lost_two[:2] = 0
    labels = 1 - lost_two
    rewards = np.where(np.arange(100) < 10, np.log(0.4 / 0.6), 0.0)
    loss = np.where(np.arange(100) < 10, 0.1, 0.0)
    bounds = [lost.mean() + 1.645 * lost.std(ddof=1) / 10 for lost in (labels, loss)]
    expected = max(0.02, min(bounds))
    assert accuracy_loss(exact, Replay(np.ones(100), lost_two, rewards), Line(1.0, 0.0)) == pytest.approx(expected)
    assert accuracy_loss(exact, exact, Line(1.0, 0.0)) == 0


def test_too_few_rollouts_ask_for_more_prompts():
    with pytest.raises(ValueError, match=r"at least 50 rollouts .* got \d+: use more prompts"):
        fit_pruning_rule(made_rollouts(prompts=4))
