"""The trade-off: its numbers equal those of the replays, its plot is a file, its errors say what is missing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from hf_elhsr import ElhsrConfig
from hf_elhsr.cli.terminal_tables import explain_calibration, tradeoff_table
from hf_elhsr.decisions.decision import TOLERANCES
from hf_elhsr.decisions.fit import fit_decisions
from hf_elhsr.decisions.replay import replay_adaptive, replay_exact, replay_pruning
from hf_elhsr.evaluation.metrics import brier_score
from hf_elhsr.evaluation.report import plot_tradeoff
from hf_elhsr.evaluation.tradeoff import ADAPTIVE, PRUNED, UNTRAINED, TradeOff, replayed
from made_rollouts import made_rollouts

NAMES = {"task": "made", "split": "test", "sampling": {}, "head_sha256": "0", "prompts": 300, "n": 6}


def config_with(fields):
    return ElhsrConfig(hidden_size=2, layers=[0], **fields)


@pytest.fixture(scope="module")
def fields():
    return fit_decisions(made_rollouts(seed=1))


@pytest.fixture(scope="module")
def measured(fields):
    return TradeOff(**NAMES, **replayed(made_rollouts(), config_with(fields)))


def test_points_equal_replays_paired_with_exact_best_of_n(fields, measured):
    scored = made_rollouts()
    exact = replay_exact(scored)
    assert measured.exact.value == pytest.approx(exact.correct.mean())
    for point in measured.by_tolerance[PRUNED]:
        replay = replay_pruning(scored, fields["pruning"].rule(point.setting))
        assert point.tokens == pytest.approx(replay.tokens.sum() / exact.tokens.sum())
        assert point.difference.value == pytest.approx((replay.correct - exact.correct).mean())
        assert point.accuracy.value == pytest.approx(measured.exact.value + point.difference.value)
        assert point.difference.low <= point.difference.value <= point.difference.high


def test_adaptive_n_is_replayed_with_pruning_inside_its_waves(fields, measured):
    scored = made_rollouts()
    exact = replay_exact(scored).tokens.sum()

    def share(tolerance, threshold=None, price=None):
        sampling = fields["adaptive"].rule(tolerance, fields["calibration"].winner)
        sampling = sampling if threshold is None else replace(sampling, threshold=threshold)
        schedule = fields["pruning"].at_price(sampling.price if price is None else price)
        return replay_adaptive(scored, [sampling], schedule)[0].tokens.sum() / exact

    for point in measured.by_tolerance[ADAPTIVE]:
        assert point.tokens == pytest.approx(share(point.setting))
    for point in measured.curves[ADAPTIVE][::6]:
        assert point.tokens == pytest.approx(share(TOLERANCES[2], point.setting))
    assert share(0.05) < share(0.05, price=0) - 0.05


def test_curves_go_from_everything_to_little(measured):
    for name in (PRUNED, UNTRAINED, ADAPTIVE):
        tokens = [point.tokens for point in measured.curves[name]]
        assert tokens[0] > tokens[-1]
        assert max(tokens) <= 1


def test_log_probabilities_without_information_save_less_than_the_head(measured):
    def tokens_at_small_loss(name):
        return min(point.tokens for point in measured.curves[name] if point.difference.value >= -0.02)

    assert tokens_at_small_loss(PRUNED) < tokens_at_small_loss(UNTRAINED) - 0.1


def test_abstention_trades_coverage_for_accuracy(measured):
    first, last = measured.abstention[0], [a for a in measured.abstention if a.coverage > 0.1][-1]
    assert (first.threshold, first.coverage) == (0.0, 1.0)
    assert first.accuracy == pytest.approx(measured.exact.value)
    assert last.accuracy > first.accuracy + 0.1
    coverages = [a.coverage for a in measured.abstention]
    assert coverages == sorted(coverages, reverse=True)


def test_json_table_and_plot(measured, tmp_path):
    values = json.loads(measured.to_json())
    assert TradeOff.from_json(measured.to_json()) == measured
    assert values["curves"][PRUNED][3]["tokens"] == measured.curves[PRUNED][3].tokens
    assert tradeoff_table(measured).row_count == 1 + 3 * len(TOLERANCES)
    assert "Brier" in explain_calibration(measured)
    file = tmp_path / "curve.svg"
    plot_tradeoff(measured, file)
    assert "<svg" in file.read_text()
    assert UNTRAINED in file.read_text()
    again = tmp_path / "again.svg"
    plot_tradeoff(measured, again)
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("missing", "message"),
    [("calibration", "no calibration"), ("pruning", "no pruning schedule"), ("adaptive", "no settings for adaptive n")],
)
def test_a_head_without_decisions_is_refused(fields, missing, message):
    with pytest.raises(ValueError, match=message):
        replayed(made_rollouts(prompts=20), config_with(fields | {missing: None}))


def test_brier_score_by_hand():
    assert brier_score(np.array([0.8, 0.3, 0.5]), np.array([True, False, False])) == pytest.approx(
        (0.04 + 0.09 + 0.25) / 3
    )
