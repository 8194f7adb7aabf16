"""Rollouts on disk: complete, resumable to the byte, refused where they do not belong."""

import dataclasses
import json
import random
import shutil
from typing import ClassVar

import numpy as np
import pytest
import torch

from hf_elhsr import ElhsrConfig, ElhsrRewardHead
from hf_elhsr.rewards.baselines import LastTokenProbe
from hf_elhsr.rollouts import Recording, RolloutSet, SamplingArguments, encode_prompts, sample_rollouts
from hf_elhsr.rollouts.shard_arrays import (
    TOKEN_ARRAYS,
    read_features,
    read_pooled_features,
    read_prefix_means,
    read_token_arrays,
)
from hf_elhsr.tasks import ArithmeticTask
from oracle import assert_rewards_close, plain_features
from tiny_models import tiny_head

ARGUMENTS = SamplingArguments(n=3, max_new_tokens=6, prompts_per_batch=2)


@pytest.fixture(scope="module")
def language_model(smollm2):
    model, _ = smollm2
    return model


@pytest.fixture(scope="module")
def config(language_model):
    return ElhsrConfig.for_model(language_model, layers=[0, 15, 30], base_model="org/smollm2")


def sample(smollm2, folder, *, task=None, split="train", prompts=4, skip=0, arguments=ARGUMENTS, **kwargs):
    model, tokenizer = smollm2
    return sample_rollouts(
        model,
        tokenizer,
        ArithmeticTask() if task is None else task,
        folder,
        split=split,
        prompts=prompts,
        skip=skip,
        arguments=arguments,
        recording=Recording(**kwargs),
    )


@pytest.fixture(scope="module")
def rollouts(smollm2, config, tmp_path_factory):
    return sample(smollm2, tmp_path_factory.mktemp("rollouts"), config=config)


def test_rollouts_are_labelled_completions_of_the_tasks_prompts(smollm2, rollouts):
    task, (_, tokenizer) = ArithmeticTask(), smollm2
    problems = task.problems("train", 4)
    sampled = rollouts.rollouts()
    assert [r.problem for r in sampled] == [p.id for p in problems for _ in range(3)]
    for number, rollout in enumerate(sampled):
        problem = problems[number // 3]
        assert rollout.template == problem.template
        assert 1 <= len(rollout.token_ids) <= 6
        assert rollout.text == tokenizer.decode(rollout.token_ids, skip_special_tokens=True)
        assert rollout.answer == task.extract(rollout.text)
        assert rollout.label == task.verify(problem, rollout.text)
        assert rollout.reward is None
    assert len({tuple(r.token_ids) for r in sampled}) > 6


def test_features_are_those_of_a_plain_forward_pass(smollm2, rollouts, config):
    model, tokenizer = smollm2
    problems = ArithmeticTask().problems("train", 4)
    number = 0
    for shard, file in rollouts.shards():
        features = read_features(file)
        assert features.dtype == torch.float32
        for rollout in shard:
            inputs = encode_prompts(tokenizer, [problems[number // 3].question])
            completion = torch.tensor(rollout.token_ids)
            expected = plain_features(model, inputs["input_ids"][0], completion, config.layers)
            actual = features[rollout.first_row : rollout.first_row + len(completion)]
            torch.testing.assert_close(actual, torch.from_numpy(expected), rtol=1e-3, atol=1e-3)
            logits = model(input_ids=torch.cat([inputs["input_ids"][0], completion])[None]).logits[0]
            distributions = logits[-len(completion) - 1 : -1].log_softmax(-1)
            chosen = distributions.gather(-1, completion[:, None]).mean()
            assert rollout.mean_log_probability == pytest.approx(float(chosen.detach()), rel=1e-3)
            certainty = -distributions.mean() - np.log(distributions.shape[-1])
            assert rollout.self_certainty == pytest.approx(float(certainty.detach()), rel=1e-3)
            number += 1
    assert number == 12


def test_pooled_features_are_the_gate_weighted_means_of_a_plain_forward_pass(smollm2, tmp_path):
    model, tokenizer = smollm2
    head = tiny_head_of(model)
    arguments = SamplingArguments(n=3, max_new_tokens=26, prompts_per_batch=2)
    pooled = sample(smollm2, tmp_path, prompts=2, arguments=arguments, head=head, pooled=True)
    [(shard, file)] = pooled.shards()
    features = read_pooled_features(file)
    assert features.shape == (6, head.config.num_features)
    problems = ArithmeticTask().problems("train", 2)
    for number, rollout in enumerate(shard):
        prompt = encode_prompts(tokenizer, [problems[number // 3].question])["input_ids"][0]
        states = plain_features(model, prompt, torch.tensor(rollout.token_ids), head.config.layers)
        gates = 1 / (1 + np.exp(-(states @ head.weight[0].detach().double().numpy() + head.bias[0].item())))
        expected = gates @ states / gates.sum()
        np.testing.assert_allclose(features[number].numpy(), expected, rtol=1e-3, atol=1e-3)
        # The very features that R is linear in
        reward = expected @ head.weight[1].detach().double().numpy() + head.bias[1].item()
        assert reward == pytest.approx(rollout.reward, abs=1e-3)
    means, members = read_prefix_means(file)
    expected = [
        (number, steps)
        for number, rollout in enumerate(shard)
        for steps in range(8 if number % 2 == 0 else 16, len(rollout.token_ids), 16)
    ]
    assert members.tolist() == [number for number, _ in expected]
    assert any(steps > 16 for _, steps in expected)
    for (number, steps), mean in zip(expected, means, strict=True):
        prompt = encode_prompts(tokenizer, [problems[number // 3].question])["input_ids"][0]
        states = plain_features(model, prompt, torch.tensor(shard[number].token_ids), head.config.layers)
        np.testing.assert_allclose(mean.numpy(), states[:steps].mean(axis=0), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="needs a head"):
        Recording(pooled=True)
    with pytest.raises(ValueError, match="pooled, prefixes differ"):
        sample(smollm2, tmp_path, prompts=2, arguments=arguments, head=head)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_run_resumes_to_the_same_bytes(smollm2, config, rollouts, tmp_path):
    model, _ = smollm2
    calls, killed_at = 0, random.Random(0).randrange(3, 9)

    def die(module, args):
        nonlocal calls
        calls += 1
        if calls == killed_at:
            raise KeyboardInterrupt

    handle = model.register_forward_pre_hook(die)
    with pytest.raises(KeyboardInterrupt):
        sample(smollm2, tmp_path, config=config)
    handle.remove()
    assert files(tmp_path).keys() < files(rollouts.folder).keys()
    # Left behind by a run killed while writing
    (tmp_path / "shard-00001.safetensors.partial").write_bytes(b"half")
    torch.manual_seed(99)
    sample(smollm2, tmp_path, config=config)
    (tmp_path / "shard-00001.safetensors.partial").unlink(missing_ok=True)
    assert files(tmp_path) == files(rollouts.folder)


def test_a_complete_run_is_not_sampled_again(smollm2, config, rollouts):
    model, _ = smollm2
    before = files(rollouts.folder)
    handle = model.register_forward_pre_hook(lambda *args: pytest.fail("the model was run"))
    sample(smollm2, rollouts.folder, config=config)
    handle.remove()
    assert files(rollouts.folder) == before


def test_sampling_leaves_the_global_random_state_alone(smollm2, config, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    sample(smollm2, tmp_path, prompts=2, config=config)
    assert torch.equal(torch.rand(1), expected)


def test_rollouts_sampled_with_other_settings_are_not_mixed(smollm2, config, rollouts):
    with pytest.raises(ValueError, match=r"different settings \(sampling differ\)"):
        sample(smollm2, rollouts.folder, arguments=dataclasses.replace(ARGUMENTS, max_new_tokens=7), config=config)
    with pytest.raises(ValueError, match=r"different settings \(prompts, prompts_sha256 differ\)"):
        sample(smollm2, rollouts.folder, prompts=5, config=config)


def test_labels_of_two_verifiers_are_not_mixed(smollm2, config, tmp_path):
    class Labelled(ArithmeticTask):
        labelled_by: ClassVar = {"verifier": "mine.py:check", "verifier_sha256": "1"}

    sampled = sample(smollm2, tmp_path, task=Labelled(), prompts=2, config=config)
    assert sampled.settings["labelled_by"] == Labelled.labelled_by
    Labelled.labelled_by = {"verifier": "mine.py:check", "verifier_sha256": "2"}
    with pytest.raises(ValueError, match="labelled_by differ"):
        sample(smollm2, tmp_path, task=Labelled(), prompts=2, config=config)


def test_with_a_head_rewards_are_stored_and_no_features(smollm2, tmp_path):
    model, tokenizer = smollm2
    head = tiny_head_of(model)
    scored = sample(smollm2, tmp_path, split="test", prompts=2, head=head)
    problems = ArithmeticTask().problems("test", 2)
    arrays = read_token_arrays(next(scored.shards())[1])
    # The last of them is recorded for heads with values only
    assert tuple(sorted(arrays)) == tuple(sorted(TOKEN_ARRAYS[:-1]))
    for number, rollout in enumerate(scored.rollouts()):
        prompt = encode_prompts(tokenizer, [problems[number // 3].question])["input_ids"][0]
        ids = torch.cat([prompt, torch.tensor(rollout.token_ids)])[None]
        mask = torch.zeros_like(ids)
        mask[:, len(prompt) :] = 1
        assert_rewards_close([rollout.reward], head.score(model, ids, mask))
        # The token arrays make up the reward and the mean log-probability of the very rollout
        own = slice(rollout.first_row, rollout.first_row + len(rollout.token_ids))
        rewards, gates, log_probabilities = (arrays[name][own].double().numpy() for name in TOKEN_ARRAYS[:-1])
        assert len(rewards) == len(rollout.token_ids)
        assert (gates * rewards).sum() / gates.sum() == pytest.approx(rollout.reward, rel=1e-4)
        assert log_probabilities.mean() == pytest.approx(rollout.mean_log_probability, rel=1e-4)
    with pytest.raises(ValueError, match="sampled without features"):
        read_features(next(scored.shards())[1])
    with pytest.raises(ValueError, match="no pooled features"):
        read_pooled_features(next(scored.shards())[1])
    other = tiny_head_of(model, seed=1)
    with pytest.raises(ValueError, match=r"different settings \(head_sha256 differ\)"):
        sample(smollm2, tmp_path, split="test", prompts=2, head=other)


def test_skip_leaves_out_the_first_prompts(smollm2, config, tmp_path):
    skipping = sample(smollm2, tmp_path, prompts=2, skip=3, config=config)
    expected = [problem.id for problem in ArithmeticTask().problems("train", 5)[3:]]
    assert list(dict.fromkeys(rollout.problem for rollout in skipping.rollouts())) == expected
    assert skipping.settings["skip"] == 3
    with pytest.raises(ValueError, match=r"prompts_sha256, skip differ"):
        sample(smollm2, tmp_path, prompts=2, config=config)
    with pytest.raises(ValueError, match="skip=-1"):
        sample(smollm2, tmp_path, prompts=2, skip=-1, config=config)


def test_without_skip_the_settings_are_those_of_older_sets(rollouts):
    assert "skip" not in rollouts.settings


def tiny_head_of(model, seed=0):
    from hf_elhsr import ElhsrRewardHead

    head = ElhsrRewardHead(ElhsrConfig.for_model(model))
    torch.nn.init.normal_(head.weight, std=1e-4, generator=torch.Generator().manual_seed(seed))
    return head


def test_a_run_is_resumed_with_a_head_that_was_moved(smollm2, tmp_path):
    from hf_elhsr import ElhsrRewardHead

    model, _ = smollm2
    tiny_head_of(model).save_pretrained(tmp_path / "here")
    folder = tmp_path / "rollouts"
    first = sample(smollm2, folder, prompts=2, head=ElhsrRewardHead.from_pretrained(tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    moved = ElhsrRewardHead.from_pretrained(tmp_path / "there")
    again = sample(smollm2, folder, prompts=2, head=moved)
    assert again.rollouts() == first.rollouts()
    # Nor do its decisions affect sampling
    line = {"slope": 1.0, "offset": 0.0}
    moved.config.calibration = {**line, "winner": line, "n": 3, "prompts": 9}
    assert sample(smollm2, folder, prompts=2, head=moved).rollouts() == first.rollouts()


def test_pooling_by_a_head_without_a_gate_is_refused_before_sampling(model):
    with pytest.raises(ValueError, match="needs a head with a gate"):
        Recording(head=tiny_head(model, gate=False), pooled=True)


def test_rollouts_of_two_models_that_a_head_fits_are_not_mixed(smollm2, tmp_path):
    """A light fine-tune fits a head that was trained for the original model; its rollouts differ all the same."""
    model, _ = smollm2
    head = tiny_head_of(model)
    first = sample(smollm2, tmp_path, prompts=2, head=head)
    weight = model.get_parameter("model.layers.29.mlp.down_proj.weight")
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(1.05)
        head.config.check_fits(model)
        with pytest.raises(ValueError, match=r"different settings \(model_sha256 differ\)"):
            sample(smollm2, tmp_path, prompts=2, head=head)
    finally:
        with torch.no_grad():
            weight.copy_(before)
    # Sets sampled before it was recorded are resumed
    settings = {name: value for name, value in first.settings.items() if name != "model_sha256"}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert sample(smollm2, tmp_path, prompts=2, head=head).rollouts() == first.rollouts()


def test_a_shard_that_was_cut_short_is_named(smollm2, config, rollouts, tmp_path):
    """It counts as sampled, so resuming the run would not complete it."""
    shutil.copytree(rollouts.folder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "shard-00001.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    for kept, found in ((0, "0 of 0"), (3, "3 of 1"), (5, "5 of 2")):
        file.write_text("".join(lines[:kept]))
        with pytest.raises(
            ValueError, match=rf"Expected 6 rollouts of 2 prompts in .*{file.name}', got {found}.*Delete"
        ):
            RolloutSet(tmp_path).check_complete()
    file.unlink()
    sample(smollm2, tmp_path, config=config).check_complete()
    assert files(tmp_path) == files(rollouts.folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"head_config": 5}'])
def test_damaged_settings_are_named(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ValueError, match=r"settings.json' does not hold the settings of rollouts .* damaged"):
        RolloutSet(tmp_path)


def test_a_head_for_another_model_is_refused(smollm2, model, tmp_path):
    with pytest.raises(ValueError, match="does not fit"):
        sample(smollm2, tmp_path, prompts=2, head=tiny_head(model))
    assert not (tmp_path / "settings.json").exists()


@pytest.mark.parametrize("repeated", ["id", "question"])
def test_a_duplicate_prompt_in_a_task_is_refused(smollm2, config, tmp_path, repeated):
    class Repeating(ArithmeticTask):
        def problems(self, split, count, seed=0):
            problems = super().problems(split, count, seed)
            return [*problems[:-1], dataclasses.replace(problems[-1], **{repeated: getattr(problems[0], repeated)})]

    with pytest.raises(ValueError, match="keep only one of them"):
        sample(smollm2, tmp_path, task=Repeating(), prompts=3, config=config)
    assert not list(tmp_path.iterdir())


def test_no_rollouts_there(tmp_path):
    with pytest.raises(ValueError, match="holds no rollouts"):
        RolloutSet(tmp_path)


def test_features_that_do_not_match_are_not_written(rollouts, tmp_path):
    settings = {k: v for k, v in rollouts.settings.items() if k != "head_config"}
    copy = RolloutSet.create(tmp_path, settings, rollouts.config)
    shard, _ = next(rollouts.shards())
    with pytest.raises(ValueError, match="rows of features"):
        copy.write_shard(0, shard, torch.zeros(3, 4))
    assert not copy.has_shard(0)
    assert json.loads((tmp_path / "settings.json").read_text()) == rollouts.settings


def test_prompts_are_left_padded_chats(smollm2):
    _, tokenizer = smollm2
    inputs = encode_prompts(tokenizer, ["Hi.", "A much longer question, is it not?"])
    assert inputs["attention_mask"][0, 0] == 0
    assert inputs["attention_mask"][:, -1].tolist() == [1, 1]
    text = tokenizer.decode(inputs["input_ids"][1])
    assert text.count("<|im_start|>assistant") == 1
    assert text.endswith("<|im_start|>assistant\n")


def test_judges_give_the_rewards_that_they_give_alone(smollm2, language_model, tmp_path):
    """Other judges change neither what is sampled nor the head's rewards."""
    head = tiny_head(language_model, layers=[0, 15, 30])
    other = tiny_head(language_model, seed=1, layers=[7])
    log_probabilities = tiny_head_of_signal(language_model, "top_log_probabilities")
    probe = LastTokenProbe(30, torch.randn(576, generator=torch.Generator().manual_seed(0)) / 100, 0.5)
    judges = {"other": other, "log-probabilities": log_probabilities, "probe": probe}
    together = sample(smollm2, tmp_path / "together", head=head, judges=judges).rollouts()
    alone = {
        name: sample(smollm2, tmp_path / name, head=judge).rollouts()
        for name, judge in (("head", head), ("other", other), ("log-probabilities", log_probabilities))
    }
    assert [r.token_ids for r in together] == [r.token_ids for r in alone["head"]]
    assert [r.reward for r in together] == [r.reward for r in alone["head"]]
    for name in ("other", "log-probabilities"):
        assert_rewards_close([r.judged[name] for r in together], [r.reward for r in alone[name]], 1e-5)
    assert len({r.judged["probe"] for r in together}) > len(together) / 2
    assert [r.judged for r in alone["head"]] == [None] * len(together)


def test_judges_are_part_of_what_a_set_is(smollm2, language_model, tmp_path):
    head, other = (tiny_head(language_model, seed=seed, layers=[7]) for seed in (0, 1))
    sample(smollm2, tmp_path, head=head, judges={"other": other})
    for judges in ({}, {"other": head}, {"another": other}):
        with pytest.raises(ValueError, match=r"different settings \(judges differ\)"):
            sample(smollm2, tmp_path, head=head, judges=judges)
    with pytest.raises(ValueError, match=r"judges \['other'\] need a head"):
        Recording(judges={"other": other})
    probe = LastTokenProbe(31, torch.ones(576), 0.0)
    with pytest.raises(ValueError, match=r"layer 31 .* and the model has layers 0 to 30 of width 576"):
        sample(smollm2, tmp_path / "new", head=head, judges={"probe": probe})
    misfit = ElhsrRewardHead(ElhsrConfig(hidden_size=3, layers=[0], base_model_type="llama"))
    with pytest.raises(ValueError, match="hidden size 3"):
        sample(smollm2, tmp_path / "new", head=head, judges={"misfit": misfit})


def tiny_head_of_signal(model, signal):
    head = ElhsrRewardHead(ElhsrConfig.for_model(model, signal=signal))
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(3)) / 10)
    return head
