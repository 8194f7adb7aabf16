"""Negative controls: nothing is found in noise, a planted signal is found, and no prompt is in both parts."""

import dataclasses

import numpy as np
import pytest
import torch
from planted_rollouts import auc_on, planted_rollouts
from trained_heads import train_head

from hf_elhsr.evaluation.metrics import area_under_curve
from hf_elhsr.training import RewardHeadTrainingArguments
from hf_elhsr.training.data import PromptGroups
from hf_elhsr.training.trainer import batch_outputs

SETTINGS = RewardHeadTrainingArguments(learning_rate=0.02, weight_decay=0.01, max_epochs=12)


def test_shuffled_labels_teach_nothing(tmp_path):
    """The negative control: with shuffled labels, heads rank the real labels no better than chance."""
    unseen = planted_rollouts(tmp_path / "unseen", seed=1)
    settings = RewardHeadTrainingArguments(learning_rate=0.02, weight_decay=0.01, max_epochs=4)
    curves: dict[bool, list[float]] = {True: [], False: []}
    for shuffle in curves:
        for seed in range(10, 18):
            rollouts = planted_rollouts(tmp_path / f"{shuffle}-{seed}", seed=seed, shuffle=shuffle)
            curves[shuffle].append(auc_on(train_head(rollouts, settings)[0], unseen))
    assert min(curves[False]) > 0.9
    # A random direction among 16 has an AUC of 0.5 +- 0.15, so the mean of eight has +- 0.05
    assert abs(np.mean(curves[True]) - 0.5) < 0.16


def test_held_out_prompts_know_nothing_of_shuffled_labels(tmp_path):
    """The control within one set: a head predicts held-out labels, but not shuffled ones.

    Held-out labels that leaked into training would show here, and would not in a different set of rollouts.
    """
    for shuffle in (False, True):
        rollouts = planted_rollouts(tmp_path / str(shuffle), prompts=600, shuffle=shuffle)
        head, _ = train_head(rollouts, dataclasses.replace(SETTINGS, max_epochs=3))
        groups = PromptGroups(rollouts)
        _, held_out = groups.split(SETTINGS.held_out, SETTINGS.seed)
        [batch] = groups.batches(held_out, len(held_out))
        rewards = batch_outputs(head, batch, torch.zeros(16), torch.ones(16))[0].detach().double().numpy()
        labels = batch.labels.bool().numpy()
        area = area_under_curve(rewards, labels)
        # Standard deviation of the AUC of scores that are independent of the labels (Mann and Whitney)
        correct, incorrect = labels.sum(), (~labels).sum()
        deviation = ((correct + incorrect + 1) / (12 * correct * incorrect)) ** 0.5
        assert abs(area - 0.5) < 3.3 * deviation if shuffle else area > 0.5 + 10 * deviation


def test_the_planted_direction_is_recovered(tmp_path):
    """Among standardised features the row of R points where the label was planted."""
    rollouts = planted_rollouts(tmp_path, prompts=400)
    head, _ = train_head(rollouts, dataclasses.replace(SETTINGS, max_epochs=40))
    planted = np.random.default_rng(42).normal(size=16)
    row = head.weight[1].detach().double().numpy() * np.logspace(-2, 3, 16)
    assert row @ planted / np.linalg.norm(row) / np.linalg.norm(planted) > 0.95


def test_prompts_are_never_split(tmp_path):
    groups = PromptGroups(planted_rollouts(tmp_path))
    train, held_out = groups.split(0.2, seed=3)
    assert not set(train) & set(held_out)
    assert sorted(train + held_out) == sorted(groups.prompts)
    assert len(held_out) == 24
    for share in (0.0, 0.001, 1.0):
        with pytest.raises(ValueError, match="leaves nothing"):
            groups.split(share, seed=0)


def test_an_unfinished_set_is_not_trained_on(tmp_path):
    rollouts = planted_rollouts(tmp_path)
    (tmp_path / "shard-00003.jsonl").unlink()
    with pytest.raises(ValueError, match="rollouts of 90 of 120 prompts"):
        train_head(rollouts, SETTINGS)


def test_a_prompt_in_two_shards_is_refused(tmp_path):
    rollouts = planted_rollouts(tmp_path)
    file = tmp_path / "shard-00003.jsonl"
    file.write_text(file.read_text().replace('"prompt-3"', '"prompt-2"'))
    with pytest.raises(ValueError, match="also in another shard"):
        train_head(rollouts, SETTINGS)


def test_a_duplicate_prompt_in_one_shard_is_refused(tmp_path):
    rollouts = planted_rollouts(tmp_path)
    file = tmp_path / "shard-00003.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    # A duplicate prompt, next to the first one and further on
    for other in (7, 11):
        file.write_text("".join(lines).replace(f'"prompt-{other}"', '"prompt-3"'))
        with pytest.raises(ValueError, match="rollouts of 119 of 120 prompts"):
            train_head(rollouts, SETTINGS)
