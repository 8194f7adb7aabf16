"""Gate, layers, standardisation and averaging take effect."""

import dataclasses

import numpy as np
import pytest
import torch
from planted_rollouts import auc_on, planted_rollouts
from trained_heads import train_head

from hf_elhsr.decisions.fit import fit_line
from hf_elhsr.rollouts.scoring import score_rollouts
from hf_elhsr.rollouts.shard_arrays import read_features
from hf_elhsr.training import PRESETS, RewardHeadTrainingArguments, refit_head
from hf_elhsr.training.data import PromptGroups, feature_statistics

SETTINGS = RewardHeadTrainingArguments(learning_rate=0.02, weight_decay=0.01, max_epochs=12)


@pytest.mark.parametrize("standardization", ["per_feature", None])
@pytest.mark.parametrize("gate", [True, False])
def test_gate_and_standardisation_are_as_asked_for(tmp_path, gate, standardization):
    rollouts = planted_rollouts(tmp_path / "train", scales=(1, 2), offset=1)
    settings = dataclasses.replace(SETTINGS, gate=gate, standardization=standardization)
    head, _ = train_head(rollouts, settings)
    assert head.config.gate is gate
    assert head.weight.shape == (1 + gate, 16)
    assert head.config.standardization == standardization
    assert auc_on(head, planted_rollouts(tmp_path / "unseen", seed=1, scales=(1, 2), offset=1)) > 0.9


def test_without_standardisation_weights_act_on_raw_features(tmp_path):
    """One step of AdamW from zero, by hand: every weight moves by the learning rate against its gradient's sign."""
    rollouts = planted_rollouts(tmp_path, scales=(1, 2), offset=1)
    settings = dataclasses.replace(PRESETS["paper"], prompts_per_batch=1000, max_epochs=1, learning_rate=0.01)
    head, _ = train_head(rollouts, settings)
    groups = PromptGroups(rollouts)
    train, _ = groups.split(settings.held_out, settings.seed)
    [batch] = groups.batches(train, 1000)
    labels = batch.labels.double().numpy()
    rows = np.split(batch.features.double().numpy(), np.cumsum(batch.lengths.numpy())[:-1])
    means = np.stack([own.mean(axis=0) for own in rows])
    # At zero weights all gates are one half, and every sigmoid(R) is the base rate; the gate's own gradient vanishes
    # except for rounding, which AdamW scales up to steps
    gradient = ((labels.mean() - labels)[:, None] * means).mean(axis=0)
    np.testing.assert_allclose(head.weight[1].detach(), -0.01 * np.sign(gradient), rtol=1e-4)
    assert head.weight[0].abs().max() < 0.9 * 0.01
    assert head.config.standardization is None


def test_only_the_first_prompts(tmp_path):
    """A head trained on the first 40 prompts equals one trained on a set without the others."""
    many, few = planted_rollouts(tmp_path / "many", prompts=60), planted_rollouts(tmp_path / "few", prompts=60)
    settings = dataclasses.replace(SETTINGS, prompts=40)
    wanted = set(PromptGroups(few).prompts[:40])
    head, report = train_head(many, settings)
    for shard, (rows, file) in enumerate(list(few.shards())):
        left = [row for row in rows if row.problem in wanted]
        features = read_features(file)[: sum(row.num_rows for row in left)].clone()
        few.write_shard(shard, left, features)
    few.settings["prompts"] = 40
    expected, expected_report = train_head(few, dataclasses.replace(settings, prompts=None))
    assert report.train_prompts + report.held_out_prompts == 40
    assert report == expected_report
    assert torch.equal(head.weight, expected.weight)
    everything, _ = train_head(many, SETTINGS)
    assert not torch.equal(head.weight, everything.weight)
    with pytest.raises(ValueError, match=r"There are 60 prompts in .*, not 61"):
        train_head(many, dataclasses.replace(SETTINGS, prompts=61))


def test_a_head_on_some_layers_equals_one_from_a_set_that_recorded_only_these(tmp_path):
    """Statistics, training, decisions and refit read the columns of these layers."""
    both = planted_rollouts(tmp_path / "both", prompts=60, longest=20)
    second = planted_rollouts(tmp_path / "second", prompts=60, longest=20)
    second.config.layers = [1]
    for shard, (rows, file) in enumerate(list(second.shards())):
        second.write_shard(shard, rows, read_features(file)[:, 8:].clone())
    settings = dataclasses.replace(SETTINGS, layers=(1,))
    head, report = train_head(both, settings)
    expected, expected_report = train_head(second, dataclasses.replace(settings, layers=None))
    assert report == expected_report
    assert head.config.layers == [1]
    assert head.config.to_dict() == expected.config.to_dict()
    refitted, wanted = refit_head(head, both)[0], refit_head(expected, second)[0]
    for actual, other in ((head, expected), (refitted, wanted)):
        for name, value in other.state_dict().items():
            assert torch.equal(actual.state_dict()[name], value)
    first, _ = train_head(both, dataclasses.replace(settings, layers=(0,)))
    assert not torch.equal(first.weight, head.weight)


def test_without_averaging_the_last_step_counts(tmp_path):
    """averaging=0 keeps the weights of the last step, not a mean; checked on a first epoch of two steps."""
    rollouts = planted_rollouts(tmp_path, prompts=20)
    settings = RewardHeadTrainingArguments(prompts_per_batch=10, max_epochs=1, averaging=0.0, learning_rate=0.5)
    steps = []
    step = torch.optim.AdamW.step

    def recording(self, *args, **kwargs):
        done = step(self, *args, **kwargs)
        steps.append(self.param_groups[0]["params"][0].detach().clone())
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", recording)
        head, _ = train_head(rollouts, settings)
    assert len(steps) == 2
    groups = PromptGroups(rollouts)
    _, std = feature_statistics(groups, groups.split(0.2, 0)[0], 10)
    torch.testing.assert_close(head.weight.detach() * std, steps[-1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("loss", ["hinge", "dpo", "info_nca", "nca"])
def test_rewards_of_every_loss_are_log_odds(tmp_path, loss, gate):
    """The scale that a loss leaves open is fitted on the held-out prompts, so calibration there is the identity."""
    rollouts = planted_rollouts(tmp_path / "train", scales=(1, 2), offset=1, signal=0.5)
    head, _ = train_head(rollouts, dataclasses.replace(SETTINGS, loss=loss, gate=gate))
    _, held_out = PromptGroups(rollouts).split(SETTINGS.held_out, SETTINGS.seed)
    scored = score_rollouts(rollouts, head, held_out)
    fitted = fit_line(scored.rewards.ravel(), scored.labels.ravel())
    assert fitted.slope == pytest.approx(1, abs=1e-3)
    assert fitted.offset == pytest.approx(0, abs=1e-3)
    unseen = score_rollouts(planted_rollouts(tmp_path / "unseen", seed=1, scales=(1, 2), offset=1), head)
    assert abs((1 / (1 + np.exp(-unseen.rewards))).mean() - unseen.labels.mean()) < 0.1
