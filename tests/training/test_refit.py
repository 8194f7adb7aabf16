"""Refitting: the optimum of the convex problem, from features pooled by the head's gates, on prompts not held out."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from planted_rollouts import planted_rollouts
from safetensors.torch import load_file, save_file
from trained_heads import train_head

from hf_elhsr import ElhsrConfig, ElhsrRewardHead
from hf_elhsr.decisions.logistic import fit_logistic
from hf_elhsr.evaluation.metrics import area_under_curve
from hf_elhsr.rollouts import RolloutSet
from hf_elhsr.rollouts.shard_arrays import read_features, read_pooled_features, read_prefix_means
from hf_elhsr.training import RewardHeadTrainingArguments, refit_head
from hf_elhsr.training.data import PromptGroups
from hf_elhsr.training.refit import prefix_means
from hf_elhsr.training.ridge_path import LabelledRows, fit_ridge_path, solve_logistic

SETTINGS = RewardHeadTrainingArguments(learning_rate=0.02, weight_decay=0.01, max_epochs=2)


def oracle_pooled(head, features):
    """float64 NumPy: sum_t g_t h_t / sum_t g_t of one rollout."""
    gates = 1 / (1 + np.exp(-(features @ head.weight[0].detach().double().numpy() + head.bias[0].item())))
    return gates @ features / gates.sum()


def pooled_rollouts(folder, head, prefixes=True, **kwargs):
    """Planted rollouts as `sample --pooled-by` writes them, with all prefixes of 8, 16, ... tokens, or none."""
    whole = planted_rollouts(folder / "whole", **kwargs)
    settings = {name: value for name, value in whole.settings.items() if name != "head_config"}
    settings |= {"head_sha256": head.digest(), "prefixes": prefixes}
    pooled = RolloutSet.create(folder / "pooled", settings, whole.config)
    for index, (shard, file) in enumerate(whole.shards()):
        features = read_features(file).double().numpy()
        rows = [oracle_pooled(head, features[r.first_row : r.first_row + len(r.token_ids)]) for r in shard]
        ends = [(k, r.first_row, t) for k, r in enumerate(shard) for t in range(8, len(r.token_ids), 8)]
        means = [features[first : first + t].mean(0) for _, first, t in ends]
        given = (
            torch.tensor(np.array(means).reshape(len(means), features.shape[1]), dtype=torch.float32),
            torch.tensor([k for k, _, _ in ends], dtype=torch.long),
        )
        pooled.write_shard(
            index,
            shard,
            pooled_features=torch.tensor(np.stack(rows), dtype=torch.float32),
            prefix_means=given if prefixes else None,
        )
    return pooled


def rewards_of(head, rollouts):
    rewards, labels = [], []
    for shard, file in rollouts.shards():
        features = read_features(file).double().numpy()
        weight = head.weight[1].detach().double().numpy()
        for r in shard:
            pooled = oracle_pooled(head, features[r.first_row : r.first_row + len(r.token_ids)])
            rewards.append(pooled @ weight + head.bias[1].item())
            labels.append(r.label)
    return np.array(rewards), np.array(labels)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    rollouts = planted_rollouts(tmp_path_factory.mktemp("refit") / "train", seed=2, signal=0.7, longest=20)
    return train_head(rollouts, SETTINGS)[0], rollouts


def test_the_solution_is_the_optimum():
    """Compared with Newton's method in float64."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 6))
    features = (features - features.mean(0)) / features.std(0)
    labels = (rng.random(400) < 1 / (1 + np.exp(-features @ rng.normal(size=6)))).astype(float)
    for ridge in (0.1, 0.001):
        expected = fit_logistic(features, labels, ridge * 400)
        start = torch.zeros(6), torch.tensor(0.0)
        rows = LabelledRows(torch.tensor(features).float(), torch.tensor(labels).float())
        weight, bias = solve_logistic(rows, ridge, *start)
        np.testing.assert_allclose([float(bias), *weight.tolist()], expected, atol=2e-3)


def test_the_ridge_is_chosen_on_held_out_rows():
    """Features at very different scales, too many for the rows: the path stops after the best ridge."""
    rng = np.random.default_rng(0)
    scale, shift, direction = np.logspace(-2, 2, 60), np.linspace(-50, 50, 60), rng.normal(size=60) / 4

    def rows(count):
        features = rng.normal(size=(count, 60))
        labels = rng.random(count) < 1 / (1 + np.exp(-features @ direction))
        raw = torch.tensor(features * scale + shift, dtype=torch.float32)
        return LabelledRows(raw, torch.tensor(labels, dtype=torch.float32))

    train, held_out, unseen = rows(150), rows(2000), rows(2000)
    raw = unseen.features.clone()
    path = fit_ridge_path(train, held_out, "Fitting")
    assert len(path.ridges) < 6
    assert path.held_out_loss[-1] > min(path.held_out_loss)
    assert path.ridge == path.ridges[-2]
    assert path.train_loss == sorted(path.train_loss, reverse=True)
    # The weights are for features before standardisation
    loss = torch.nn.functional.binary_cross_entropy_with_logits(raw @ path.weight + path.bias, unseen.labels)
    assert float(loss) == pytest.approx(min(path.held_out_loss), abs=0.03)


def test_prefix_means_by_hand(trained):
    _, rollouts = trained
    [batch] = PromptGroups(planted_rollouts(rollouts.folder.parent / "long", prompts=8, longest=30)).batches(
        [f"prompt-{number}" for number in range(8)], 8
    )
    means, rollout = prefix_means(batch, 1.0, torch.Generator())
    expected = []
    for number, own in enumerate(batch.features.double().split(batch.lengths.tolist())):
        expected += [(number, own[:steps].mean(0)) for steps in (8, 16, 24) if steps < len(own)]
    assert rollout.tolist() == [number for number, _ in expected]
    torch.testing.assert_close(means.double(), torch.stack([mean for _, mean in expected]), rtol=1e-4, atol=1e-3)
    some = prefix_means(batch, 0.4, torch.Generator().manual_seed(0))[0]
    assert 0.2 < len(some) / len(means) < 0.6


def test_pooling_is_the_gate_weighted_mean(trained):
    head, rollouts = trained
    shard, file = next(rollouts.shards())
    features = read_features(file)
    pooled = head.pool(features, torch.tensor([len(r.token_ids) for r in shard]))
    expected = [
        oracle_pooled(head, features[r.first_row : r.first_row + len(r.token_ids)].double().numpy()) for r in shard
    ]
    # The features' scales span five orders of magnitude, and the gates' logits sum over them in float32
    scale = np.stack(expected).std(axis=0)
    np.testing.assert_allclose(pooled.numpy() / scale, np.stack(expected) / scale, rtol=1e-4, atol=5e-3)


def test_more_rollouts_make_a_better_reward(trained, tmp_path):
    head, rollouts = trained
    before = copy.deepcopy(head.state_dict())
    more = pooled_rollouts(tmp_path, head, seed=5, prompts=400, signal=0.7, first=1000)
    refitted, report = refit_head(head, rollouts, [more])
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert torch.equal(refitted.weight[0], head.weight[0])
    assert torch.equal(refitted.bias[0], head.bias[0])
    assert report.train_prompts == 96 + 400
    assert report.held_out_prompts == 24
    assert min(report.reward["held_out_loss"]) < report.reward["held_out_loss_before"]
    unseen = planted_rollouts(tmp_path / "unseen", seed=1, signal=0.7, prompts=400)
    assert area_under_curve(*rewards_of(refitted, unseen)) > area_under_curve(*rewards_of(head, unseen)) + 0.005
    # Its decisions are fitted to the new rewards
    assert refitted.config.calibration != head.config.calibration
    assert refitted.config.calibration.prompts == 24


def test_rewards_alone_learn_from_rollouts_without_prefixes(trained, tmp_path):
    head, rollouts = trained
    planted = {"seed": 5, "prompts": 40, "signal": 0.7, "longest": 20, "first": 1000}
    _, report = refit_head(head, rollouts)
    with_prefixes, more = refit_head(head, rollouts, [pooled_rollouts(tmp_path / "with", head, **planted)])
    without_prefixes, less = refit_head(
        head, rollouts, [pooled_rollouts(tmp_path / "without", head, prefixes=False, **planted)]
    )
    assert more.reward["rows"] == less.reward["rows"] == report.reward["rows"] + 40 * 6
    assert more.value["rows"] > less.value["rows"] == report.value["rows"]
    assert torch.equal(with_prefixes.weight, without_prefixes.weight)
    assert not torch.equal(with_prefixes.value_weight, without_prefixes.value_weight)


def test_prompts_with_a_rollout_that_could_not_be_verified_are_left_out(trained, tmp_path):
    """All their rollouts are left out, since those that remain would be biased towards easily verified ones."""
    head, rollouts = trained
    planted = {"seed": 5, "prompts": 40, "signal": 0.7, "longest": 20, "first": 1000}
    more = pooled_rollouts(tmp_path, head, **planted)
    _, whole = refit_head(head, rollouts, [more])
    file = more.folder / "shard-00000.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    unverified = max(records, key=lambda rollout: len(rollout["token_ids"]))
    own = [record for record in records if record["problem"] == unverified["problem"]]
    prefixes = sum(len(range(8, len(record["token_ids"]), 8)) for record in own)
    assert prefixes > len(range(8, len(unverified["token_ids"]), 8)) > 0
    unverified |= {"label": None, "verifier_failure": "none"}
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    _, partly = refit_head(head, rollouts, [more])
    assert partly.reward["rows"] == whole.reward["rows"] - len(own) == whole.reward["rows"] - 6
    assert partly.value["rows"] == whole.value["rows"] - prefixes
    assert partly.train_prompts == whole.train_prompts - 1


def test_the_reported_losses_are_those_of_the_head(trained):
    """The row of R acts on features before standardisation, which is folded in."""
    head, rollouts = trained
    refitted, report = refit_head(head, rollouts)
    _, held_out = PromptGroups(rollouts).split(0.2, 0)
    ids = [rollout.problem for rollout in rollouts.rollouts()]
    chosen = np.isin(ids, held_out)
    for which, reported in (
        (head, report.reward["held_out_loss_before"]),
        (refitted, min(report.reward["held_out_loss"])),
    ):
        rewards, labels = (array[chosen] for array in rewards_of(which, rollouts))
        loss = np.mean(np.logaddexp(0, rewards) - labels * rewards)
        assert loss == pytest.approx(reported, abs=2e-4)


def test_values_are_refitted_on_prefixes(trained):
    head, rollouts = trained
    refitted, report = refit_head(head, rollouts)
    assert min(report.value["held_out_loss"]) <= report.value["held_out_loss_before"]
    assert not torch.equal(refitted.value_weight, head.value_weight)
    groups = PromptGroups(rollouts)
    [batch] = groups.batches(groups.split(0.2, 0)[1], 24)
    means, rollout = prefix_means(batch, 1.0, torch.Generator())
    values = means @ refitted.value_weight[0].detach() + refitted.value_bias[0].detach()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(values, batch.labels[rollout])
    assert float(loss) == pytest.approx(min(report.value["held_out_loss"]), abs=0.05)


def test_completions_too_short_for_prefixes_leave_the_values_unchanged(tmp_path):
    rollouts = planted_rollouts(tmp_path, signal=0.7)
    head, _ = train_head(rollouts, SETTINGS)
    refitted, report = refit_head(head, rollouts)
    assert report.value is None
    assert torch.equal(refitted.value_weight, head.value_weight)


def test_a_head_of_the_first_prompts_is_refitted_on_them(tmp_path):
    """Prompts that it was not trained on are neither held out nor learned from."""
    rollouts = planted_rollouts(tmp_path, prompts=60)
    settings = dataclasses.replace(SETTINGS, prompts=40)
    head, report = train_head(rollouts, settings)
    _, refitted = refit_head(head, rollouts, held_out=settings.held_out, seed=settings.seed, prompts=40)
    assert (refitted.train_prompts, refitted.held_out_prompts) == (report.train_prompts, report.held_out_prompts)
    # The held-out loss before is that at the end of training, on the same prompts
    assert refitted.reward["held_out_loss_before"] == pytest.approx(min(report.held_out_loss), rel=1e-3)
    _, on_all = refit_head(head, rollouts, held_out=settings.held_out, seed=settings.seed)
    assert on_all.reward["held_out_loss_before"] != pytest.approx(min(report.held_out_loss), rel=1e-4)


def test_shuffled_labels_teach_nothing(trained, tmp_path):
    """The negative control."""
    head, _ = trained
    more = pooled_rollouts(tmp_path, head, seed=6, prompts=400, signal=0.7, first=1000, shuffle=True)
    shuffled = planted_rollouts(tmp_path / "shuffled", seed=0, signal=0.7, shuffle=True)
    refitted, _ = refit_head(head, shuffled, [more])
    unseen = planted_rollouts(tmp_path / "unseen", seed=1, signal=0.7, prompts=400)
    rewards, labels = rewards_of(refitted, unseen)
    assert abs(area_under_curve(rewards, labels) - 0.5) < 0.2
    assert area_under_curve(*rewards_of(head, unseen)) > 0.75


def test_refuses_what_cannot_be_refitted(trained, tmp_path):
    head, rollouts = trained
    more = pooled_rollouts(tmp_path / "more", head, seed=5, prompts=8)
    with pytest.raises(ValueError, match=r"'prompt-0' is in .*would be trained on"):
        refit_head(head, rollouts, [more])
    other = copy.deepcopy(head)
    with torch.no_grad():
        other.weight[0] += 1
    with pytest.raises(ValueError, match="not pooled by this head's gates"):
        refit_head(other, rollouts, [more])
    features_only = planted_rollouts(tmp_path / "features", seed=7, prompts=8, first=500)
    file = features_only.folder / "settings.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"head_sha256": head.digest()}))
    with pytest.raises(ValueError, match="no pooled features"):
        refit_head(head, rollouts, [RolloutSet(features_only.folder)])
    poisoned = planted_rollouts(tmp_path / "poisoned", poison=True)
    with pytest.raises(ValueError, match=r"shard-0000\d.safetensors' contain NaN or infinity"):
        refit_head(head, poisoned)
    plain = ElhsrRewardHead(ElhsrConfig(hidden_size=8, layers=[0, 1], gate=False))
    with pytest.raises(ValueError, match="a head with a gate"):
        refit_head(plain, rollouts)


def test_a_held_out_rollout_that_is_not_finite_is_found_in_its_file(trained, tmp_path):
    head, _ = trained
    damaged = planted_rollouts(tmp_path, seed=2, signal=0.7, longest=20)
    held_out = PromptGroups(damaged).split(0.2, 0)[1][0]
    [row, *_], file = next(
        ([r.first_row for r in shard if r.problem == held_out], file)
        for shard, file in damaged.shards()
        if any(r.problem == held_out for r in shard)
    )
    features = load_file(file)["features"]
    features[row, 3] = float("nan")
    save_file({"features": features}, file)
    with pytest.raises(ValueError, match=f"{file.name}' contain NaN or infinity"):
        refit_head(head, damaged)


@pytest.mark.parametrize("name", ["pooled_features", "prefix_means"])
def test_pooled_features_that_are_not_finite_are_found_in_their_file(trained, tmp_path, name):
    head, rollouts = trained
    more = pooled_rollouts(tmp_path, head, seed=5, prompts=8, first=500, longest=20)
    file = more.folder / "shard-00001.safetensors"
    arrays = load_file(file)
    arrays[name][0, 2] = float("inf")
    save_file(arrays, file)
    with pytest.raises(ValueError, match=r"shard-00001.safetensors' contain NaN or infinity"):
        refit_head(head, rollouts, [more])


def test_values_learn_from_the_rewards_of_whole_completions(trained, tmp_path):
    """The row of V_t is the optimum for sigmoid(R), not for the labels, by float64 NumPy gradients."""
    head, rollouts = trained
    more = pooled_rollouts(tmp_path, head, seed=5, prompts=40, signal=0.7, longest=20, first=1000)
    refitted, report = refit_head(head, rollouts, [more])
    reward_weight, reward_bias = refitted.weight[1].detach().double().numpy(), refitted.bias[1].item()
    groups = PromptGroups(rollouts)
    train, kept_out = groups.split(0.2, 0)
    generator = torch.Generator().manual_seed(0)
    for prompts in (kept_out, train):
        means, expected, labels = [], [], []
        for batch in groups.batches(prompts, 16):
            batch_means, rollout = prefix_means(batch, 0.8, generator)
            means.append(batch_means.double().numpy())
            whole = [
                oracle_pooled(refitted, own.double().numpy()) for own in batch.features.split(batch.lengths.tolist())
            ]
            rewards = np.stack(whole) @ reward_weight + reward_bias
            expected.append((1 / (1 + np.exp(-rewards)))[rollout.numpy()])
            labels.append(batch.labels.numpy()[rollout.numpy()])
    for shard, file in more.shards():
        own_means, rollout = read_prefix_means(file)
        rewards = read_pooled_features(file).double().numpy() @ reward_weight + reward_bias
        means.append(own_means.double().numpy())
        expected.append((1 / (1 + np.exp(-rewards)))[rollout.numpy()])
        labels.append(np.array([r.label for r in shard], dtype=float)[rollout.numpy()])
    assert report.value["rows"] == sum(len(rows) for rows in means)
    means, expected, labels = np.concatenate(means), np.concatenate(expected), np.concatenate(labels)
    scale = means.std(axis=0)
    weight = refitted.value_weight[0].detach().double().numpy()
    predicted = 1 / (1 + np.exp(-(means @ weight + refitted.value_bias[0].item())))

    def gradient(targets):
        fit = ((means - means.mean(axis=0)) / scale).T @ (predicted - targets) / len(targets)
        return np.abs(fit + report.value["ridge"] * weight * scale).max()

    assert gradient(expected) < 2e-3
    assert gradient(labels) > 10 * gradient(expected)
