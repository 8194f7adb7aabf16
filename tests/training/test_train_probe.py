"""The probe learns only from the last token of the last layer."""

import numpy as np
import pytest
import torch
from planted_rollouts import planted_rollouts

from hf_elhsr import ElhsrConfig
from hf_elhsr.evaluation.metrics import area_under_curve
from hf_elhsr.rollouts import Rollout, RolloutSet
from hf_elhsr.rollouts.shard_arrays import read_features
from hf_elhsr.training import train_last_token_probe


def auc(probe, rollouts):
    rewards, labels = [], []
    width = len(probe.weight)
    for shard, file in rollouts.shards():
        features = read_features(file)
        for rollout in shard:
            last = features[rollout.first_row + len(rollout.token_ids) - 1, -width:]
            rewards.append(float(last.float() @ probe.weight + probe.bias))
            labels.append(rollout.correct)
    return area_under_curve(np.array(rewards), np.array(labels))


def test_a_planted_direction_is_found_and_shuffled_labels_teach_nothing(tmp_path):
    probe = train_last_token_probe(planted_rollouts(tmp_path / "train", signal=3.0))
    assert probe.layer == 1
    unseen = planted_rollouts(tmp_path / "unseen", seed=1, signal=3.0)
    assert auc(probe, unseen) > 0.85
    shuffled = train_last_token_probe(planted_rollouts(tmp_path / "shuffled", signal=3.0, shuffle=True))
    assert abs(auc(shuffled, unseen) - 0.5) < 0.2


def test_tokens_before_the_last_are_not_read(tmp_path):
    """The label is planted in every token but the last."""
    rng = np.random.default_rng(0)
    settings = {"task": "planted", "split": "train", "prompts": 100}
    rollouts = RolloutSet.create(tmp_path, settings, ElhsrConfig(hidden_size=4, layers=[0]))
    labels = rng.random(400) < 0.5
    features = rng.normal(size=(400, 3, 4))
    features[:, :2, 0] += 4 * labels[:, None]
    rows = [
        Rollout(f"p{number // 4}", "t", [1] * 3, "", None, bool(label), -1.0, 3 * number)
        for number, label in enumerate(labels)
    ]
    rollouts.write_shard(0, rows, torch.tensor(features.reshape(-1, 4), dtype=torch.float32))
    assert abs(auc(train_last_token_probe(rollouts), rollouts) - 0.5) < 0.12


def test_rollouts_without_hidden_states_or_of_one_class_are_refused(tmp_path):
    settings = {"task": "made", "split": "train", "prompts": 4}
    config = ElhsrConfig(signal="top_log_probabilities", num_log_probabilities=2, hidden_size=4, layers=[])
    made = RolloutSet.create(tmp_path / "log", settings, config)
    rows = [Rollout(f"p{i}", "t", [1], "", None, False, -1.0, i) for i in range(4)]
    made.write_shard(0, rows, torch.zeros(4, 3))
    with pytest.raises(ValueError, match="reads hidden states, but these rollouts have 'top_log_probabilities'"):
        train_last_token_probe(made)
    one_class = RolloutSet.create(tmp_path / "one", settings, ElhsrConfig(hidden_size=3, layers=[0]))
    one_class.write_shard(0, rows, torch.zeros(4, 3))
    with pytest.raises(ValueError, match="same label"):
        train_last_token_probe(one_class, held_out=0.5)


def test_features_that_are_not_finite_are_refused_in_both_parts(tmp_path):
    """In the held-out part they would make all penalties equally good."""
    settings = {"task": "made", "split": "train", "prompts": 20}
    rng = np.random.default_rng(0)
    rows = [Rollout(f"p{i}", "t", [1], "", None, bool(rng.random() < 0.5), -1.0, i) for i in range(20)]
    for number in range(20):
        rollouts = RolloutSet.create(tmp_path / str(number), settings, ElhsrConfig(hidden_size=3, layers=[0]))
        features = torch.tensor(rng.normal(size=(20, 3)), dtype=torch.float32)
        features[number, 1] = float("nan")
        rollouts.write_shard(0, rows, features)
        with pytest.raises(ValueError, match="contain NaN or infinity"):
            train_last_token_probe(rollouts)
