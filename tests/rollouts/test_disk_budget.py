"""A disk budget: what is recorded fits it, is what would have been recorded anyway, and can be learned from."""

import collections
import dataclasses
import itertools
import resource
import shutil

import numpy as np
import pytest
import torch
from killed_sampling import tiny_tokenizer
from planted_rollouts import auc_on, planted_rollouts
from tiny_task import TinyTask
from trained_heads import train_head
from transformers.utils import logging

from hf_elhsr import ElhsrConfig, enable_best_of_n
from hf_elhsr._files import write_arrays
from hf_elhsr.rollouts import Recording, RolloutSet, SamplingArguments, sample_rollouts
from hf_elhsr.rollouts.disk_budget import parse_bytes, plan_recording, recorded_tokens
from hf_elhsr.rollouts.scoring import score_rollouts
from hf_elhsr.rollouts.shard_arrays import read_features
from hf_elhsr.training import RewardHeadTrainingArguments, refit_head
from hf_elhsr.training.data import PromptGroups
from tiny_models import tiny_head, tiny_model

CONFIG = ElhsrConfig(hidden_size=10, layers=list(range(7)))
# 100 rollouts of 64 tokens of 70 numbers of 2 bytes
WHOLE = 100 * 64 * 70 * 2


def plan(budget, config=CONFIG, tokens=64, dtype=torch.bfloat16):
    return plan_recording(config, dtype, 100, tokens, budget)


def test_all_that_fits_is_kept():
    assert (plan(WHOLE).every, plan(WHOLE).num_bytes) == (1, WHOLE)
    assert plan(WHOLE).config.layers == CONFIG.layers
    assert plan(WHOLE, dtype=torch.float32).every == 2
    logits = ElhsrConfig(signal="logits", base_vocab_size=70)
    assert (plan(WHOLE, logits).every, plan(WHOLE, logits, dtype=torch.float32).every) == (1, 2)


def test_tokens_go_first_and_then_layers():
    chosen = [plan(budget) for budget in range(WHOLE + 1, 100 * 8 * 10 * 2, -997)]
    for earlier, later in itertools.pairwise(chosen):
        assert earlier.every <= later.every <= 9
        assert len(earlier.config.layers) >= len(later.config.layers)
    for budget, one in zip(range(WHOLE + 1, 100 * 8 * 10 * 2, -997), chosen, strict=True):
        tokens = -(-64 // one.every)
        assert one.num_bytes == 100 * tokens * one.config.num_features * 2 <= budget
        assert tokens >= 8
        # Layers are left out only where as few tokens as allowed did not fit, and as few layers as needed
        if one.config.layers != CONFIG.layers:
            assert tokens == 8
            assert 100 * tokens * 10 * (len(one.config.layers) + 1) * 2 > budget
        elif one.every > 1:
            assert 100 * -(-64 // (one.every - 1)) * 70 * 2 > budget
        layers = one.config.layers
        assert layers[-1] == 6
        assert len(layers) == 1 or max(np.diff(layers)) - min(np.diff(layers)) <= 1
    assert {len(one.config.layers) for one in chosen} == set(range(1, 8))
    assert CONFIG.layers == list(range(7))


@pytest.fixture
def full_disk():
    """Files of this process may not grow beyond 2,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_reported_and_leaves_what_was_there(tmp_path, full_disk):
    file = tmp_path / "shard-00000.safetensors"
    write_arrays(file, {"features": torch.ones(3)})
    kept = file.read_bytes()
    with pytest.raises(OSError, match=r"shard-00000.safetensors' cannot be written .* disk is full, make room"):
        write_arrays(file, {"features": torch.ones(3000)})
    assert file.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [file]


def test_too_little_room_is_reported_before_the_sampling(tmp_path, caplog, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    logging.enable_propagation()
    model = enable_best_of_n(tiny_model())
    # Four rollouts of at most 5 tokens, in float32
    most = 4 * 5 * ElhsrConfig.for_model(model).num_features * 4
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 0, most - 1))
    arguments = SamplingArguments(n=2, max_new_tokens=5, prompts_per_batch=2)
    with caplog.at_level("WARNING"):
        sample_rollouts(model, tiny_tokenizer(), TinyTask(), tmp_path, prompts=2, arguments=arguments)
    assert "The features may take up to 0.0 GB" in caplog.text
    caplog.clear()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 0, most))
    with caplog.at_level("WARNING"):
        sample_rollouts(model, tiny_tokenizer(), TinyTask(), tmp_path / "again", prompts=2, arguments=arguments)
    logging.disable_propagation()
    assert "The features may take" not in caplog.text


def test_logits_in_bfloat16_keep_twice_the_tokens_in_the_same_bytes(tmp_path):
    arguments = SamplingArguments(n=2, max_new_tokens=32, prompts_per_batch=2)
    config = ElhsrConfig.for_model(tiny_model(), signal="logits")
    budget = 4 * 16 * config.num_features * 4
    every = {}
    for dtype in (torch.float32, torch.bfloat16):
        model, folder = enable_best_of_n(tiny_model().to(dtype)), tmp_path / str(dtype)
        sampled = sample_rollouts(
            model,
            tiny_tokenizer(),
            TinyTask(),
            folder,
            prompts=2,
            arguments=arguments,
            recording=Recording(config=config, disk_budget=budget),
        )
        every[dtype] = sampled.settings.get("feature_every", 1)
        features = [read_features(file) for file in sorted(folder.glob("*.safetensors"))]
        assert {own.dtype for own in features} == {dtype}
    assert every == {torch.float32: 2, torch.bfloat16: 1}


def test_what_was_left_out_is_reported(caplog):
    logging.enable_propagation()
    plan(WHOLE)
    assert caplog.text == ""
    plan(100 * 8 * 20 * 2)
    plan(100 * 5 * 70 * 2 - 1, tokens=5)
    logging.disable_propagation()
    both, layers = (record.getMessage() for record in caplog.records)
    assert "may take 896,000 bytes, and the disk budget is 32,000" in both
    assert "one token in 9 and the last" in both
    assert "layers [2, 6] of 7: at most 32,000 bytes" in both
    assert "token in" not in layers


def test_features_of_no_tokens_need_no_budget():
    with pytest.raises(ValueError, match="which a head does not record"):
        Recording(head=tiny_head(tiny_model()), disk_budget=9)


def test_a_budget_for_nothing():
    least = 100 * 8 * 10 * 2
    assert plan(least).config.layers == [6]
    with pytest.raises(ValueError, match=f"disk_budget={least - 1}: .* may take {least} bytes"):
        plan(least - 1)
    with pytest.raises(ValueError, match="disk_budget=0: expected a positive"):
        plan(0)
    logits = ElhsrConfig(signal="logits", base_vocab_size=70)
    with pytest.raises(ValueError, match="one token in 9 alone may take"):
        plan(least, logits)
    # Completions shorter than eight tokens keep all of them
    assert plan(100 * 5 * 70 * 2 - 1, tokens=5).every == 1


@pytest.mark.parametrize("length", range(1, 20))
@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_recorded_tokens(length, every):
    """A plain loop, and the bound that plans count on."""
    expected = [t for t in range(length) if (t + 1) % every == 0 or t == length - 1]
    assert recorded_tokens(length, every) == expected
    assert len(expected) == -(-length // every)


def test_sizes():
    assert parse_bytes("50GB") == 50 * 10**9
    assert parse_bytes(" 1.5 tb") == 1_500_000_000_000
    assert parse_bytes("800") == parse_bytes("0.8kB") == 800
    for text in ("", "GB", "-1GB", "5 GiB", "1e9", "ten"):
        with pytest.raises(ValueError, match="Expected a number of bytes"):
            parse_bytes(text)


def sampled(folder, disk_budget=None):
    model = enable_best_of_n(tiny_model())
    arguments = SamplingArguments(n=4, max_new_tokens=24, prompts_per_batch=3)
    recording = Recording(disk_budget=disk_budget)
    return sample_rollouts(
        model, tiny_tokenizer(), TinyTask(), folder, prompts=6, arguments=arguments, recording=recording
    )


def test_what_is_recorded_is_part_of_what_would_have_been(tmp_path):
    whole = sampled(tmp_path / "whole")
    width = whole.config.num_features
    for name, budget, every, layers in (
        ("tokens", 6 * 4 * 8 * width * 4, 3, [0, 1, 2, 3]),
        ("layers", 6 * 4 * 8 * width * 2, 3, [1, 3]),
        ("all", 6 * 4 * 24 * width * 4, 1, [0, 1, 2, 3]),
    ):
        some = sampled(tmp_path / name, budget)
        assert some.config.layers == layers
        assert some.settings.get("feature_every", 1) == every
        columns = np.concatenate([np.arange(layer * 32, layer * 32 + 32) for layer in layers])
        size = 0
        for (members, file), (others, other_file) in zip(some.shards(), whole.shards(), strict=True):
            features, expected = read_features(file), read_features(other_file)
            size += features.nbytes
            for rollout, other in zip(members, others, strict=True):
                kept = recorded_tokens(len(other.token_ids), every)
                assert rollout.token_ids == other.token_ids
                assert rollout.feature_tokens == (None if every == 1 else kept)
                actual = features[rollout.first_row : rollout.first_row + rollout.num_rows]
                own = expected[other.first_row : other.first_row + len(other.token_ids)]
                assert torch.equal(actual, own[kept][:, columns])
        assert size <= budget
    # A resumed run needs the same budget, or one that leads to the same choice
    sampled(tmp_path / "tokens", 6 * 4 * 8 * width * 4 + 1)
    with pytest.raises(ValueError, match="feature_every differ"):
        sampled(tmp_path / "tokens")


def subsampled(source: RolloutSet, folder, every):
    """The same rollouts with features of fewer tokens."""
    settings = {name: value for name, value in source.settings.items() if name != "head_config"}
    some = RolloutSet.create(folder, settings | {"feature_every": every}, source.config)
    for index, (members, file) in enumerate(source.shards()):
        rows, features, kept = [], read_features(file), []
        for rollout in members:
            tokens = recorded_tokens(len(rollout.token_ids), every)
            rows.append(dataclasses.replace(rollout, first_row=sum(map(len, kept)), feature_tokens=tokens))
            kept.append(features[rollout.first_row + torch.tensor(tokens)])
        some.write_shard(index, rows, torch.cat(kept))
    return some


def test_a_head_is_learned_from_what_was_recorded(tmp_path):
    settings = RewardHeadTrainingArguments(learning_rate=0.02, weight_decay=0.01, max_epochs=12)
    rollouts = subsampled(
        planted_rollouts(tmp_path / "whole", longest=24, scales=(1, 2), offset=1), tmp_path / "some", 3
    )
    head, report = train_head(rollouts, settings)
    unseen = planted_rollouts(tmp_path / "unseen", seed=1, longest=24, scales=(1, 2), offset=1)
    assert auc_on(head, unseen) > 0.9
    # Rewards of subsampled rollouts are gated means over what is there
    scored = score_rollouts(rollouts, head, subsampled=True)
    weight, bias = head.weight.detach().double().numpy(), head.bias.detach().double().numpy()
    expected = []
    for members, file in rollouts.shards():
        for rollout in members:
            own = read_features(file)[rollout.first_row : rollout.first_row + rollout.num_rows].double().numpy()
            gates = 1 / (1 + np.exp(-(own @ weight[0] + bias[0])))
            expected.append(gates @ (own @ weight[1] + bias[1]) / gates.sum())
    np.testing.assert_allclose(scored.rewards.flatten(), expected, rtol=1e-3, atol=1e-3)
    # What needs every token is not there
    assert head.config.value is False
    assert head.config.pruning is None
    assert head.config.calibration is not None
    assert (report.held_out_prefix_loss, report.best_value_epoch) == ([], -1)
    with pytest.raises(ValueError, match="left out for a disk budget"):
        score_rollouts(rollouts, head)
    refitted, after = refit_head(head, rollouts)
    assert min(after.reward["held_out_loss"]) <= after.reward["held_out_loss_before"] + 1e-3
    assert refitted.config.pruning is None
    with_values, _ = train_head(unseen, settings)
    with pytest.raises(ValueError, match="pass the rollouts that the head was trained on"):
        refit_head(with_values, rollouts)


def test_sets_without_the_field_load_as_whole(tmp_path):
    rollouts = planted_rollouts(tmp_path)
    for file in tmp_path.glob("*.jsonl"):
        file.write_text(file.read_text().replace(', "feature_tokens": null', ""))
    assert all(rollout.feature_tokens is None for rollout in RolloutSet(tmp_path).rollouts())
    assert PromptGroups(rollouts).subsampled is False
