"""Training finds a planted signal, finds nothing in shuffled labels, keeps the best weights and splits by prompt."""

import copy
import dataclasses
import random
from itertools import cycle

import numpy as np
import pytest
import torch
from planted_rollouts import auc_on, planted_rollouts
from safetensors.torch import save_file
from trained_heads import train_head
from transformers.utils import logging

from hf_elhsr.evaluation.metrics import area_under_curve
from hf_elhsr.rollouts.shard_arrays import read_features
from hf_elhsr.training import LOSSES, RewardHeadTrainer, RewardHeadTrainingArguments, binary_cross_entropy, trainer
from hf_elhsr.training.checkpoint import TrainingState
from hf_elhsr.training.data import PromptGroups, feature_statistics
from hf_elhsr.training.losses import Loss, prefix_cross_entropy
from hf_elhsr.training.trainer import batch_outputs

SETTINGS = RewardHeadTrainingArguments(learning_rate=0.02, weight_decay=0.01, max_epochs=12)


def test_a_planted_signal_is_found(tmp_path):
    rollouts = planted_rollouts(tmp_path / "train")
    head, report = train_head(rollouts, SETTINGS)
    unseen = planted_rollouts(tmp_path / "unseen", seed=1)
    assert auc_on(head, unseen) > 0.9
    assert report.held_out_best_of_n > report.base_rate + 0.4
    assert head.config.standardization == "per_feature"
    assert rollouts.config.standardization is None


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_finds_the_signal(tmp_path, loss):
    head, _ = train_head(planted_rollouts(tmp_path / "train"), dataclasses.replace(SETTINGS, loss=loss))
    assert auc_on(head, planted_rollouts(tmp_path / "unseen", seed=1)) > 0.9


@pytest.mark.parametrize("part", ["training", "held-out"])
@pytest.mark.parametrize("loss", [name for name, loss in LOSSES.items() if loss.compares])
def test_losses_that_compare_need_something_to_compare(tmp_path, loss, part):
    rollouts = planted_rollouts(tmp_path)
    train, held_out = PromptGroups(rollouts).split(SETTINGS.held_out, SETTINGS.seed)
    one_kind = dict(zip(train if part == "training" else held_out, cycle([True, False])))
    for index, (shard, file) in enumerate(rollouts.shards()):
        rows = [dataclasses.replace(row, label=one_kind.get(row.problem, row.label)) for row in shard]
        rollouts.write_shard(index, rows, read_features(file).clone())
    train_head(rollouts, SETTINGS)
    with pytest.raises(ValueError, match=f"no {part} prompt has both"):
        train_head(rollouts, dataclasses.replace(SETTINGS, loss=loss))


def test_a_loss_that_stays_the_same_ends_the_training(tmp_path, monkeypatch):
    flat = Loss("Flat", lambda rewards, labels, prompts: rewards.sum() * 0.0)
    monkeypatch.setitem(LOSSES, "hinge", flat)
    _, report = train_head(planted_rollouts(tmp_path), dataclasses.replace(SETTINGS, loss="hinge", patience=2))
    assert report.best_epoch == 0
    assert len(report.held_out_loss) == 3


def test_a_loss_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match="loss='mse': expected one of binary_cross_entropy"):
        train_head(planted_rollouts(tmp_path), dataclasses.replace(SETTINGS, loss="mse"))


def test_the_best_weights_are_returned(tmp_path):
    """Trained far past the best epoch, the head has that epoch's held-out loss, not that of the last."""
    rollouts = planted_rollouts(tmp_path, signal=0.4, prompts=60)
    settings = RewardHeadTrainingArguments(learning_rate=0.1, weight_decay=0.0, max_epochs=25, patience=24)
    head, report = train_head(rollouts, settings)
    losses = report.held_out_loss
    assert report.best_epoch == int(np.argmin(losses))
    assert losses[-1] > min(losses) + 0.02
    groups = PromptGroups(rollouts)
    _, held_out = groups.split(settings.held_out, settings.seed)
    zeros, ones = torch.zeros(16), torch.ones(16)
    [batch] = groups.batches(held_out, len(held_out))
    with torch.no_grad():
        loss = float(binary_cross_entropy(batch_outputs(head, batch, zeros, ones)[0], batch.labels))
    assert loss == pytest.approx(min(losses), abs=1e-3)


def test_the_best_values_are_returned(tmp_path):
    """The row of V_t has the weights of its own best epoch, whichever that is for R."""
    rollouts = planted_rollouts(tmp_path, signal=0.4, prompts=60, longest=30)
    settings = RewardHeadTrainingArguments(learning_rate=0.1, weight_decay=0.0, max_epochs=25, patience=24)
    head, report = train_head(rollouts, settings)
    losses = report.held_out_prefix_loss
    assert losses[-1] > min(losses) + 0.02
    groups = PromptGroups(rollouts)
    _, held_out = groups.split(settings.held_out, settings.seed)
    [batch] = groups.batches(held_out, len(held_out))
    with torch.no_grad():
        _, values = batch_outputs(head, batch, torch.zeros(16), torch.ones(16))
    assert float(prefix_cross_entropy(values, batch.lengths, batch.labels)) == pytest.approx(min(losses), abs=1e-3)


def test_patience_stops_early(tmp_path):
    _, report = train_head(
        planted_rollouts(tmp_path, signal=0.0),
        RewardHeadTrainingArguments(learning_rate=0.1, max_epochs=40, patience=2),
    )
    assert len(report.held_out_loss) == report.best_epoch + 3 < 40


@pytest.mark.parametrize("killed_in", [1, 4])
def test_a_killed_training_resumes_to_the_same_head(tmp_path, monkeypatch, killed_in):
    rollouts = planted_rollouts(tmp_path / "rollouts", prompts=60, longest=20)
    settings = RewardHeadTrainingArguments(learning_rate=0.02, max_epochs=6)
    whole, whole_report = train_head(rollouts, settings)
    checkpoint = tmp_path / "head" / "checkpoint.safetensors"
    epochs = 0
    evaluate = RewardHeadTrainer._evaluate

    def die(*args):
        nonlocal epochs
        epochs += 1
        if epochs == killed_in + 1:
            raise KeyboardInterrupt
        return evaluate(*args)

    monkeypatch.setattr(RewardHeadTrainer, "_evaluate", die)
    with pytest.raises(KeyboardInterrupt):
        train_head(rollouts, settings, checkpoint)
    assert checkpoint.is_file()
    epochs = 100
    resumed, report = train_head(rollouts, settings, checkpoint)
    assert epochs == 106 - killed_in
    assert report == whole_report
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])
    # It is kept, since the head may not be saved yet, and gives the same head without another epoch
    again, report = train_head(rollouts, settings, checkpoint)
    assert epochs == 106 - killed_in
    assert report == whole_report
    assert torch.equal(again.weight, whole.weight)


@pytest.mark.parametrize("fewer", [{"max_epochs": 3}, {"patience": 1}])
def test_a_training_that_went_too_far_starts_again(tmp_path, monkeypatch, fewer):
    """Resumed, it would keep weights that fewer epochs or less patience never reach."""
    rollouts = planted_rollouts(tmp_path / "rollouts", prompts=60, signal=0.0)
    settings = RewardHeadTrainingArguments(learning_rate=0.1, max_epochs=12, patience=11)
    expected, expected_report = train_head(rollouts, dataclasses.replace(settings, **fewer))
    assert len(expected_report.held_out_loss) < 7
    evaluate, epochs = RewardHeadTrainer._evaluate, 0

    def die(*args):
        nonlocal epochs
        epochs += 1
        if epochs == 9:
            raise KeyboardInterrupt
        return evaluate(*args)

    checkpoint = tmp_path / "checkpoint.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(RewardHeadTrainer, "_evaluate", die)
        with pytest.raises(KeyboardInterrupt):
            train_head(rollouts, settings, checkpoint)
    again, report = train_head(rollouts, dataclasses.replace(settings, **fewer), checkpoint)
    assert report == expected_report
    assert torch.equal(again.weight, expected.weight)


def test_a_checkpoint_of_a_different_training_is_not_resumed(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    run = {"seed": 0}
    TrainingState({"mean": torch.ones(2)}, {"best_epoch": 1}).save(checkpoint, run)
    state = TrainingState.load(checkpoint, run)
    assert torch.equal(state.tensors["mean"], torch.ones(2))
    assert state.report == {"best_epoch": 1}
    assert TrainingState.load(checkpoint, {"seed": 1}) is None
    assert TrainingState.load(tmp_path / "none", run) is None


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "no metadata", "one bit"])
def test_a_damaged_checkpoint_is_set_aside_and_training_starts_again(tmp_path, monkeypatch, caplog, damage):
    logging.enable_propagation()
    rollouts = planted_rollouts(tmp_path / "rollouts", prompts=60)
    settings = dataclasses.replace(SETTINGS, max_epochs=2)
    checkpoint = tmp_path / "checkpoint.safetensors"
    expected, _ = train_head(rollouts, settings, checkpoint)
    content = bytearray(checkpoint.read_bytes())
    content[-1] ^= 1
    damaged = {"empty": b"", "cut": content[: len(content) // 2], "other": b"x" * 100, "one bit": bytes(content)}
    if damage == "no metadata":
        save_file({"mean": torch.ones(2)}, checkpoint)
    else:
        checkpoint.write_bytes(damaged[damage])
    trained, _ = train_head(rollouts, settings, checkpoint)
    assert torch.equal(trained.weight, expected.weight)
    assert "checkpoint.safetensors' is damaged" in caplog.text
    assert "checkpoint.safetensors.damaged', and training starts again" in caplog.text


def test_a_training_on_different_labels_is_a_different_training(tmp_path, monkeypatch):
    rollouts = planted_rollouts(tmp_path / "rollouts", prompts=60)
    checkpoint = tmp_path / "checkpoint.safetensors"
    monkeypatch.setattr(trainer, "fit_decisions", lambda *arguments: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            train_head(rollouts, dataclasses.replace(SETTINGS, max_epochs=2), checkpoint)
        kept = checkpoint.read_bytes()
    for index, (shard, file) in enumerate(rollouts.shards()):
        rows = [dataclasses.replace(row, label=not row.label) for row in shard]
        rollouts.write_shard(index, rows, read_features(file).clone())
    with pytest.raises(ZeroDivisionError):
        train_head(rollouts, dataclasses.replace(SETTINGS, max_epochs=2), checkpoint)
    assert checkpoint.read_bytes() != kept


def test_same_seed_same_head(tmp_path):
    rollouts = planted_rollouts(tmp_path)
    first, second = train_head(rollouts, SETTINGS)[0], train_head(rollouts, SETTINGS)[0]
    assert torch.equal(first.weight, second.weight)
    other = train_head(rollouts, RewardHeadTrainingArguments(**{**SETTINGS.__dict__, "seed": 1}))[0]
    assert not torch.equal(first.weight, other.weight)


def test_batches_hold_the_features_of_the_rollouts(tmp_path):
    rollouts = planted_rollouts(tmp_path, prompts=9)
    groups = PromptGroups(rollouts)
    expected = {}
    for shard, file in rollouts.shards():
        for rollout in shard:
            rows = read_features(file)[rollout.first_row : rollout.first_row + len(rollout.token_ids)]
            expected.setdefault(rollout.problem, []).append((rollout.label, rows))
    seen = []
    order = list(groups.prompts)
    random.Random(0).shuffle(order)
    for start, batch in zip(range(0, 9, 4), groups.batches(order, 4), strict=True):
        features, rollout, labels = batch.features.clone(), batch.rollout, batch.labels
        wanted = [pair for prompt in order[start : start + 4] for pair in expected[prompt]]
        assert labels.bool().tolist() == [label for label, _ in wanted]
        for index, (_, rows) in enumerate(wanted):
            assert torch.equal(features[rollout == index], rows)
        seen += wanted
    assert len(seen) == 54


def test_statistics_equal_those_of_numpy(tmp_path):
    rollouts = planted_rollouts(tmp_path)
    groups = PromptGroups(rollouts)
    mean, std = feature_statistics(groups, groups.prompts, 7)
    everything = torch.cat([b.features.clone() for b in groups.batches(groups.prompts, 5)]).double().numpy()
    np.testing.assert_allclose(mean, everything.mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(std, everything.std(0), rtol=1e-2)


def test_a_constant_feature_is_ignored_not_scaled_up(tmp_path):
    rollouts = planted_rollouts(tmp_path)
    for _, file in rollouts.shards():
        features = read_features(file).clone()
        features[:, 4] = 7.0
        save_file({"features": features}, file)
    head, _ = train_head(rollouts, SETTINGS)
    assert torch.isfinite(head.weight).all()
    assert (head.weight[:, 4] == 0).all()


def test_prefix_cross_entropy_equals_that_of_numpy():
    rng = np.random.default_rng(0)
    lengths, labels = np.array([3, 17, 8, 25, 9]), np.array([1.0, 0, 1, 1, 0])
    values = [rng.normal(size=length) for length in lengths]
    losses = []
    for value, label in zip(values, labels, strict=True):
        for t in range(8, len(value), 8):
            logit = value[:t].mean()
            losses.append(np.log1p(np.exp(-logit)) if label else np.log1p(np.exp(logit)))
    assert len(losses) == 2 + 3 + 1
    actual = prefix_cross_entropy(
        torch.tensor(np.concatenate(values)), torch.tensor(lengths), torch.tensor(labels), interval=8
    )
    assert float(actual) == pytest.approx(np.mean(losses), rel=1e-6)
    assert float(prefix_cross_entropy(torch.ones(5), torch.tensor([2, 3]), torch.tensor([1.0, 0]))) == 0


def test_values_separate_correct_from_incorrect_prefixes(tmp_path):
    """V_t after eight tokens, on unseen prompts."""
    rollouts = planted_rollouts(tmp_path / "train", longest=30)
    head, report = train_head(rollouts, SETTINGS)
    assert report.best_value_epoch == int(np.argmin(report.held_out_prefix_loss))
    values, labels = [], []
    groups = PromptGroups(planted_rollouts(tmp_path / "unseen", seed=1, longest=30))
    zeros, ones = torch.zeros(16), torch.ones(16)
    for batch in groups.batches(groups.prompts, 10):
        _, token_values = batch_outputs(head, batch, zeros, ones)
        for own, label in zip(token_values.detach().split(batch.lengths.tolist()), batch.labels, strict=True):
            if len(own) > 8:
                values.append(float(own[:8].mean()))
                labels.append(bool(label))
    assert area_under_curve(np.array(values), np.array(labels)) > 0.85
    assert head.config.pruning is not None
    assert len(head.config.pruning.prefix[0]) == 5


def test_training_does_not_touch_the_rollout_set(tmp_path):
    rollouts = planted_rollouts(tmp_path)
    before = copy.deepcopy({p.name: p.read_bytes() for p in tmp_path.iterdir()})
    train_head(rollouts, SETTINGS)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
