"""Rollouts that cannot be learned from are refused, and the message names the file."""

import dataclasses

import pytest
from planted_rollouts import planted_rollouts
from safetensors.torch import save_file
from trained_heads import train_head

from hf_elhsr.rollouts.shard_arrays import read_features
from hf_elhsr.training import RewardHeadTrainingArguments
from hf_elhsr.training.data import PromptGroups

SETTINGS = RewardHeadTrainingArguments(learning_rate=0.02, weight_decay=0.01, max_epochs=12)


def test_labels_of_one_class(tmp_path):
    rollouts = planted_rollouts(tmp_path)
    for file in tmp_path.glob("*.jsonl"):
        file.write_text(file.read_text().replace('"label": true', '"label": false'))
    with pytest.raises(ValueError, match="training rollouts have the same label"):
        train_head(rollouts, SETTINGS)


def test_features_that_are_not_finite(tmp_path):
    with pytest.raises(ValueError, match="NaN or infinity"):
        train_head(planted_rollouts(tmp_path, poison=True), SETTINGS)


@pytest.mark.parametrize("standardization", ["per_feature", None])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["train", "held_out"])
def test_features_that_are_not_finite_are_found_in_their_file(tmp_path, standardization, bad, part):
    rollouts = planted_rollouts(tmp_path)
    prompts = dict(zip(("train", "held_out"), PromptGroups(rollouts).split(0.2, 0), strict=True))[part]
    [(file, row)] = [
        (file, rollout.first_row)
        for shard, file in rollouts.shards()
        for rollout in {rollout.problem: rollout for rollout in shard}.values()
        if rollout.problem == prompts[3]
    ]
    features = read_features(file).clone()
    features[row, 6] = bad
    save_file({"features": features}, file)
    settings = dataclasses.replace(SETTINGS, standardization=standardization, learning_rate=1e-5, max_epochs=1)
    with pytest.raises(ValueError, match=f"{file.name}.* contain NaN or infinity.*delete it"):
        train_head(rollouts, settings)


def test_a_damaged_shard_is_named(tmp_path):
    rollouts = planted_rollouts(tmp_path)
    file = tmp_path / "shard-00002.safetensors"
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\xff" * 100):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"shard-00002.safetensors' cannot be read .* Delete it and the .jsonl"):
            train_head(rollouts, SETTINGS)
    file.write_bytes((tmp_path / "shard-00001.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"Expected features of shape .*shard-00002.safetensors.* Delete both"):
        train_head(rollouts, SETTINGS)
    file.write_bytes(whole)
    records = tmp_path / "shard-00001.jsonl"
    records.write_text(records.read_text()[:-40])
    with pytest.raises(ValueError, match=r"shard-00001.jsonl' does not hold one rollout per line"):
        train_head(rollouts, SETTINGS)


def test_a_training_that_diverges_says_so(tmp_path):
    settings = RewardHeadTrainingArguments(learning_rate=1e30, max_epochs=2)
    with pytest.raises(ValueError, match=r"diverged\. Lower learning_rate"):
        train_head(planted_rollouts(tmp_path), settings)
