"""Evaluation: worked out by hand, compared with scipy, and with intervals that cover."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from hf_elhsr import ElhsrConfig, fit_combination
from hf_elhsr.decisions.selection import select_winners, worse_of_ranks
from hf_elhsr.evaluation import Evaluation, evaluate_rollouts, strategies
from hf_elhsr.evaluation.best_of_n import LEARNED_STRATEGY, TEXT_STRATEGIES, Measured
from hf_elhsr.evaluation.bootstrap import bootstrap_interval
from hf_elhsr.evaluation.metrics import area_under_curve, expected_calibration_error
from hf_elhsr.rollouts import Rollout, RolloutSet


def rollout(problem, answer, label, log_probability=-1.0, reward=0.0):
    return Rollout(problem, "t", [1, 2], "text", answer, label, log_probability, 0, reward)


GROUP = [
    rollout("p", "5", True, -0.9, 0.3),
    rollout("p", "7", False, -0.1, 0.9),
    rollout("p", "7", False, -0.5, -2.0),
    rollout("p", None, False, -0.2, 0.1),
]


def test_strategies_by_hand():
    assert strategies.single_sample(GROUP) == 0.25
    assert strategies.majority_vote(GROUP) == 0.0
    assert strategies.mean_log_probability(GROUP) == 0.0
    assert strategies.reward_head(GROUP) == 0.0
    assert strategies.oracle(GROUP) == 1.0
    assert strategies.majority_vote(GROUP[:2]) == 0.5
    # sigmoid(0.3) = 0.57 against sigmoid(0.9) + sigmoid(-2) = 0.83; against twice sigmoid(-2) = 0.24
    assert strategies.weighted_vote(GROUP) == 0.0
    assert strategies.weighted_vote([GROUP[0], GROUP[2], GROUP[2], GROUP[3]]) == 1.0
    assert strategies.weighted_vote([GROUP[3]] * 2) == 0.0
    assert (
        strategies.weighted_vote([rollout("p", "5", True, reward=-700.0), rollout("p", "7", False, reward=-900.0)])
        == 1.0
    )
    assert strategies.majority_vote([GROUP[3]] * 2) == 0.0
    assert strategies.mean_log_probability([GROUP[0], GROUP[2]]) == 0.0
    assert strategies.reward_head([GROUP[0], GROUP[3]]) == 1.0


def test_a_vote_is_as_often_correct_as_the_rollouts_with_its_answer():
    """Verifiers may check more than the final answer."""
    fives = [rollout("p", "5", number == 0) for number in range(5)]
    seven = rollout("p", "7", True, reward=-3.0)
    for vote in (strategies.majority_vote, strategies.weighted_vote):
        assert vote(fives) == pytest.approx(0.2)
        assert vote([*fives, seven]) == pytest.approx(0.2)
    # Both answers have two votes, of which 1/2 and 1 are correct
    tied = [*fives[:2], seven, seven]
    assert strategies.majority_vote(tied) == pytest.approx(0.75)


def of_length(tokens, label, log_probability):
    return Rollout("p", "t", [1] * tokens, "text", None, label, log_probability, 0, 0.0)


def test_short_completions_gain_from_sums_but_not_from_means():
    short_wrong, long_right = of_length(2, False, -0.9), of_length(10, True, -0.3)
    pair = [long_right, short_wrong]
    assert strategies.summed_log_probability(pair) == strategies.shortest(pair) == 0.0
    assert strategies.mean_log_probability(pair) == 1.0
    # -1.5 against -1.8; and the two shortest share the vote
    assert strategies.summed_log_probability([of_length(10, True, -0.15), short_wrong]) == 1.0
    assert strategies.shortest([short_wrong, of_length(2, True, -5.0), long_right]) == 0.5


def test_self_certainty_by_hand():
    sure_wrong, unsure_right = (dataclasses.replace(r, self_certainty=c) for r, c in ((GROUP[1], 3.0), (GROUP[0], 2.0)))
    assert strategies.self_certainty([sure_wrong, unsure_right]) == 0.0
    assert strategies.self_certainty([sure_wrong, dataclasses.replace(unsure_right, self_certainty=3.5)]) == 1.0
    with pytest.raises(ValueError, match="before self-certainty was recorded"):
        strategies.self_certainty([sure_wrong, GROUP[0]])


def test_ties_are_counted_by_their_expectation():
    tied = [rollout("p", "5", True), rollout("p", "6", False), rollout("p", "6", False)]
    assert strategies.reward_head(tied) == pytest.approx(1 / 3)
    assert strategies.mean_log_probability(tied) == pytest.approx(1 / 3)


def test_rollouts_without_rewards():
    with pytest.raises(ValueError, match="sampled without a head"):
        strategies.reward_head([Rollout("p", "t", [1], "", None, True, -1.0, 0)])


def make_set(folder, prompts=200, n=4, seed=0, quality=2.0):
    rng = np.random.default_rng(seed)
    rollouts = RolloutSet.create(
        folder,
        {"task": "made", "split": "test", "prompts": prompts, "sampling": {}, "head_sha256": "0"},
        ElhsrConfig(hidden_size=2, layers=[0]),
    )
    rows = []
    for prompt in range(prompts):
        for _ in range(n):
            label = bool(rng.random() < 0.25)
            answer = "right" if label else str(rng.integers(0, 3))
            reward = float(quality * label + rng.normal() - 1.5)
            rows.append(rollout(f"p{prompt}", answer, label, float(-rng.random()), reward))
    rollouts.write_shard(0, rows, None)
    return rollouts


def test_evaluation_of_a_set(tmp_path):
    rollouts = make_set(tmp_path)
    evaluation = evaluate_rollouts(rollouts)
    groups = [rollouts.rollouts()[i : i + 4] for i in range(0, 800, 4)]
    accuracy = {name: evaluation.accuracy[name].value for name in evaluation.accuracy}
    assert (evaluation.prompts, evaluation.n, evaluation.split) == (200, 4, "test")
    assert accuracy["single sample"] == pytest.approx(evaluation.base_rate)
    best = np.mean([max(group, key=lambda r: r.reward).label for group in groups])
    assert accuracy["reward head"] == pytest.approx(best)
    assert accuracy["oracle"] == pytest.approx(np.mean([any(r.label for r in g) for g in groups]))
    gap = (best - evaluation.base_rate) / (accuracy["oracle"] - evaluation.base_rate)
    assert evaluation.gap_closed.value == pytest.approx(gap)
    assert evaluation.head_minus["single sample"].value == pytest.approx(best - evaluation.base_rate)
    assert evaluation.head_minus["single sample"].low > 0.2
    for measured in (*evaluation.accuracy.values(), *evaluation.head_minus.values(), evaluation.gap_closed):
        assert measured.low <= measured.value <= measured.high
    assert Evaluation.from_json(evaluation.to_json()) == evaluation
    assert evaluation.answered == 1.0
    chances = [1 / (1 + np.exp(-r.reward)) for r in rollouts.rollouts()]
    squares = [(p - r.label) ** 2 for p, r in zip(chances, rollouts.rollouts(), strict=True)]
    assert evaluation.brier_score == pytest.approx(np.mean(squares))
    head, oracle = (
        np.array([measured.value for measured in evaluation.by_k[name]]) for name in ("reward head", "oracle")
    )
    assert head[[0, 3]] == pytest.approx([evaluation.base_rate, best])
    assert oracle[[0, 3]] == pytest.approx([evaluation.base_rate, accuracy["oracle"]])
    assert evaluation.by_k["majority vote"][3].value == pytest.approx(accuracy["majority vote"])
    # With an informative head more candidates are better, and no head is better than the oracle
    assert (np.diff(head) > 0).all()
    assert (head <= oracle + 1e-12).all()


def test_a_text_reward_model_in_addition_to_the_head(tmp_path):
    rollouts = make_set(tmp_path)
    groups = [rollouts.rollouts()[i : i + 4] for i in range(0, 800, 4)]
    rng = np.random.default_rng(5)
    scores = {group[0].problem: [2.0 * r.label + rng.normal() for r in group] for group in groups}
    evaluation = evaluate_rollouts(rollouts, scores)
    plain = evaluate_rollouts(rollouts)
    assert {name: evaluation.accuracy[name] for name in plain.accuracy} == plain.accuracy
    alone, ranks, scaled = (evaluation.accuracy[name].value for name in TEXT_STRATEGIES)
    winners = [group[int(np.argmax(scores[group[0].problem]))] for group in groups]
    assert alone == pytest.approx(np.mean([winner.label for winner in winners]))

    def min_max(values):
        values = np.array(values)
        return (values - values.min()) / (values.max() - values.min())

    judged = [min_max([r.reward for r in group]) + min_max(scores[group[0].problem]) for group in groups]
    expected = np.mean([group[int(np.argmax(own))].label for group, own in zip(groups, judged, strict=True)])
    assert scaled == pytest.approx(expected, abs=1e-9)
    # Two independent sources are better than one
    assert min(ranks, scaled) > max(alone, evaluation.accuracy["reward head"].value)
    assert evaluation.head_minus["text reward model"].value == pytest.approx(
        plain.accuracy["reward head"].value - alone
    )
    assert Evaluation.from_json(evaluation.to_json()) == evaluation
    # The control: a source that scores all alike changes only how ties are broken
    silent = evaluate_rollouts(rollouts, {problem: [0.0] * 4 for problem in scores})
    assert silent.accuracy["text reward model"].value == pytest.approx(plain.base_rate)
    assert silent.accuracy["head and text, min-max"] == plain.accuracy["reward head"]


@pytest.mark.parametrize(("silent", "expected"), [(200, 0.75), (800, None)])
def test_rollouts_without_a_final_answer(tmp_path, silent, expected):
    rollouts = make_set(tmp_path)
    [(rows, _)] = rollouts.shards()
    mute = [dataclasses.replace(row, answer=None) if i < silent else row for i, row in enumerate(rows)]
    rollouts.write_shard(0, mute, None)
    assert evaluate_rollouts(rollouts).answered == expected


def test_comparisons_are_paired(tmp_path):
    """A judge with the same rewards as the head differs from it by exactly 0."""
    rollouts = make_set(tmp_path)
    [(rows, _)] = rollouts.shards()
    rng = np.random.default_rng(1)
    twins = [dataclasses.replace(row, judged={"twin": row.reward, "other": float(rng.normal())}) for row in rows]
    rollouts.write_shard(0, twins, None)
    evaluation = evaluate_rollouts(rollouts)
    assert evaluation.head_minus["twin"] == Measured(0.0, 0.0, 0.0)
    assert evaluation.accuracy["twin"] == evaluation.accuracy["reward head"]
    for other, minus in evaluation.judges_minus["twin"].items():
        assert minus == evaluation.head_minus[other]
    # The subset of all n is all rollouts
    assert evaluation.by_k["reward head"][3] == evaluation.accuracy["reward head"]


def test_combined_ties_go_to_the_head_as_generate_breaks_them(tmp_path):
    rollouts = make_set(tmp_path, prompts=300, n=4)
    groups = [rollouts.rollouts()[i : i + 4] for i in range(0, 1200, 4)]
    rng = np.random.default_rng(2)
    scores = {group[0].problem: rng.normal(size=4).tolist() for group in groups}
    rewards = [[row.reward for row in group] for group in groups]
    said = torch.tensor([rewards, list(scores.values())], dtype=torch.float64).permute(1, 2, 0)
    combined = worse_of_ranks(said)
    assert (combined == combined.max(dim=1, keepdim=True).values).sum() > 1.1 * len(groups)
    winners = select_winners(combined, 1, torch.ones(combined.shape, dtype=torch.bool), said[..., 0])[:, 0].tolist()
    expected = np.mean([group[winner].label for group, winner in zip(groups, winners, strict=True)])
    evaluation = evaluate_rollouts(rollouts, scores)
    assert evaluation.accuracy["head and text, worse of ranks"].value == pytest.approx(expected)


def test_a_set_that_was_not_scored_whole(tmp_path):
    rollouts = make_set(tmp_path)
    scores = {rollout.problem: [0.5] * 4 for rollout in rollouts.rollouts()}
    for partial in ({**scores, "p7": [0.5] * 3}, {name: own for name, own in scores.items() if name != "p7"}):
        with pytest.raises(ValueError, match="each of the 4 rollouts of problem 'p7'"):
            evaluate_rollouts(rollouts, partial)


def test_self_certainty_is_measured_where_all_have_it(tmp_path):
    rollouts = make_set(tmp_path)
    assert "self-certainty" not in evaluate_rollouts(rollouts).accuracy
    [(rows, _)] = rollouts.shards()
    rng = np.random.default_rng(3)
    certain = [dataclasses.replace(row, self_certainty=float(row.label + rng.normal())) for row in rows]
    rollouts.write_shard(0, certain, None)
    accuracy = evaluate_rollouts(rollouts).accuracy["self-certainty"]
    groups = [certain[i : i + 4] for i in range(0, 800, 4)]
    expected = np.mean([max(group, key=lambda r: r.self_certainty).label for group in groups])
    assert accuracy.value == pytest.approx(expected)
    assert accuracy.low > 0.25
    rollouts.write_shard(0, [*certain[:-1], rows[-1]], None)
    assert "self-certainty" not in evaluate_rollouts(rollouts).accuracy


def test_an_uninformative_head_gains_nothing(tmp_path):
    """The negative control."""
    evaluation = evaluate_rollouts(make_set(tmp_path, prompts=400, quality=0.0))
    ahead = evaluation.head_minus["single sample"]
    assert ahead.low < 0 < ahead.high
    assert abs(evaluation.area_under_curve - 0.5) < 0.05


def test_bootstrap_intervals_cover(tmp_path):
    """About 95 of 100 intervals of a mean contain the true mean, and they are as wide as in theory."""
    rng = np.random.default_rng(0)
    hits, widths = 0, []
    for seed in range(200):
        values = rng.normal(1.0, 2.0, size=(80, 1))
        low, high = bootstrap_interval(values, lambda means: means[:, 0], resamples=1000, seed=seed)
        hits += low <= 1.0 <= high
        widths.append(high - low)
    assert 0.89 <= hits / 200 <= 0.99
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 2 / np.sqrt(80), rel=0.05)


def test_area_under_curve_is_the_mann_whitney_statistic():
    rng = np.random.default_rng(0)
    labels = rng.random(300) < 0.3
    rewards = np.round(rng.normal(size=300) + labels, 1)
    expected = mannwhitneyu(rewards[labels], rewards[~labels]).statistic / (labels.sum() * (~labels).sum())
    assert area_under_curve(rewards, labels) == pytest.approx(expected)


def test_expected_calibration_error():
    labels = np.array([True, False, False, False])
    assert expected_calibration_error(np.full(4, 0.25), labels) == pytest.approx(0.0)
    assert expected_calibration_error(np.full(4, 0.95), labels) == pytest.approx(0.7)
    assert expected_calibration_error(np.array([1.0, 0.0, 0.0, 0.0]), labels) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "different numbers of rollouts"),
        (lambda rows: rows[:-4], "rollouts of 4 of 5 prompts"),
        (
            lambda rows: [r.replace('"reward": ', '"reward": NaN, "x": ').split(', "x"')[0] + "}" for r in rows],
            "finite",
        ),
        (lambda rows: [r.replace('"label": true', '"label": false') for r in rows], "No prompt has both"),
    ],
)
def test_sets_that_cannot_be_evaluated_are_refused(tmp_path, change, message):
    rollouts = make_set(tmp_path, prompts=5)
    file = tmp_path / "shard-00000.jsonl"
    file.write_text("\n".join(change(file.read_text().splitlines())) + "\n")
    with pytest.raises(ValueError, match=message):
        evaluate_rollouts(rollouts)


def test_judges_in_addition_to_the_head(tmp_path):
    rollouts = make_set(tmp_path)
    [(rows, _)] = rollouts.shards()
    rng = np.random.default_rng(3)
    judged = [{"perfect": float(r.label), "blind": float(rng.normal())} for r in rows]
    rollouts.write_shard(0, [dataclasses.replace(r, judged=own) for r, own in zip(rows, judged, strict=True)])
    evaluation = evaluate_rollouts(rollouts)
    assert evaluation.accuracy["perfect"] == evaluation.accuracy["oracle"]
    blind = evaluation.accuracy["blind"]
    assert blind.low < evaluation.base_rate < blind.high
    ahead = evaluation.head_minus["blind"]
    assert ahead.value == pytest.approx(evaluation.accuracy["reward head"].value - blind.value)
    assert ahead.low > 0
    assert evaluation.judges_minus.keys() == {"perfect", "blind"}
    vote = evaluation.accuracy["majority vote"].value
    assert evaluation.judges_minus["blind"]["majority vote"].value == pytest.approx(blind.value - vote)
    assert evaluation.judges_minus["perfect"]["mean log-probability"].low > 0
    assert Evaluation.from_json(evaluation.to_json()) == evaluation
    scores = {rollout.problem: [0.0] * 4 for rollout in rows}
    beside = evaluate_rollouts(rollouts, scores)
    assert {name: beside.accuracy[name] for name in evaluation.accuracy} == evaluation.accuracy
    assert beside.accuracy["head and text, min-max"] == evaluation.accuracy["reward head"]


def test_a_learned_combination_of_head_and_text(tmp_path):
    """Fitted on other prompts, with text scores ten times larger than their weight."""
    rng = np.random.default_rng(5)

    def scores_of(rollouts):
        rows = rollouts.rollouts()
        groups = [rows[i : i + 4] for i in range(0, len(rows), 4)]
        scores = {group[0].problem: [20.0 * r.label + 10.0 * rng.normal() for r in group] for group in groups}
        rewards = np.array([[r.reward for r in group] for group in groups])
        return scores, np.stack([rewards, np.array(list(scores.values()))], axis=-1), rows

    _, both, rows = scores_of(make_set(tmp_path / "other", seed=1))
    combination = fit_combination(both, np.array([r.label for r in rows]).reshape(-1, 4))
    rollouts = make_set(tmp_path / "test")
    scores, both, rows = scores_of(rollouts)
    evaluation = evaluate_rollouts(rollouts, scores, combination=combination)
    combined = both @ np.array(combination.weights)
    expected = np.array([r.label for r in rows]).reshape(-1, 4)[np.arange(200), combined.argmax(axis=1)].mean()
    assert evaluation.accuracy[LEARNED_STRATEGY].value == pytest.approx(expected)
    assert expected > max(evaluation.accuracy[name].value for name in ("reward head", "text reward model"))
    assert combination.weights[0] == pytest.approx(10 * combination.weights[1], rel=0.5)
    with pytest.raises(ValueError, match="needs text scores"):
        evaluate_rollouts(rollouts, combination=combination)


@pytest.mark.parametrize("name", ["reward head", "oracle", "text reward model", "head and text, learned"])
def test_a_judge_may_not_have_the_name_of_a_strategy(tmp_path, name):
    rollouts = make_set(tmp_path)
    [(rows, _)] = rollouts.shards()
    rollouts.write_shard(0, [dataclasses.replace(r, judged={name: 0.5}) for r in rows])
    with pytest.raises(ValueError, match=f"Judges are called \\['{name}'\\], which are names of strategies"):
        evaluate_rollouts(rollouts)
