"""An engine from outside the package: what it samples is recorded, trained on and evaluated like any other."""

import random

import numpy as np
import pytest
import torch
from tiny_task import TinyTask
from trained_heads import train_head

from hf_elhsr import ElhsrConfig, ElhsrRewardHead, StepSignal, enable_best_of_n
from hf_elhsr.evaluation import evaluate_rollouts
from hf_elhsr.rewards import SignalProcessorList
from hf_elhsr.rollouts import (
    Completion,
    Recording,
    SamplingArguments,
    SamplingEngine,
    TransformersEngine,
    sample_rollouts,
)
from hf_elhsr.rollouts.shard_arrays import read_features
from hf_elhsr.training import RewardHeadTrainingArguments
from tiny_models import tiny_head, tiny_model

WIDTH, VOCABULARY = 6, 64
ARGUMENTS = SamplingArguments(n=4, max_new_tokens=5, prompts_per_batch=8)


class ScriptedEngine:
    """Completions drawn by a plain random generator, whose hidden states show whether the first word is even."""

    def describe(self):
        return {"dtype": "float32", "script": 1}

    def digest(self):
        return "scripted"

    def prompt_ids(self, question):
        return [int(word.removeprefix("w")) for word in question.split()]

    def sample(self, questions, arguments, seed, processors):
        rng, followers = random.Random(seed), SignalProcessorList(processors)
        lengths = [rng.randint(1, arguments.max_new_tokens) for _ in range(len(questions) * arguments.n)]
        completions = [[rng.randrange(5, VOCABULARY) for _ in range(length)] for length in lengths]
        followers.begin(len(completions), torch.device("cpu"))
        for step in range(max(lengths)):
            rows = [row for row, length in enumerate(lengths) if length > step]
            prefixes = [completions[row][: step + 1] for row in rows]
            signal = StepSignal(
                torch.tensor(rows),
                torch.ones(len(rows), dtype=torch.bool),
                (torch.stack([self.hidden_state(prefix) for prefix in prefixes]),),
                torch.zeros(len(rows), VOCABULARY),
            )
            followers(torch.tensor(prefixes), signal)
        return [Completion(ids, " ".join(f"w{token}" for token in ids)) for ids in completions]

    def hidden_state(self, prefix):
        state = torch.full((WIDTH,), float(len(prefix)))
        state[0] = 1.0 if prefix[0] % 2 == 0 else -1.0
        return state

    def check_fits(self, judge):
        if judge.config.hidden_size != WIDTH:
            raise ValueError("The head does not fit the script.")

    def head_config(self):
        return ElhsrConfig(hidden_size=WIDTH, layers=[0])

    def recorded_dtype(self, config):
        return torch.float32


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripted")
    return sample_rollouts(ScriptedEngine(), None, TinyTask(), folder, prompts=40, arguments=ARGUMENTS)


def test_what_it_samples_and_shows_is_recorded(rollouts):
    engine = ScriptedEngine()
    assert isinstance(engine, SamplingEngine)
    assert rollouts.settings["script"] == 1
    assert rollouts.config.num_features == WIDTH
    for shard, file in rollouts.shards():
        features = read_features(file)
        for rollout in shard:
            assert rollout.label == (rollout.token_ids[0] % 2 == 0)
            own = features[rollout.first_row : rollout.first_row + rollout.num_rows]
            prefixes = [rollout.token_ids[: step + 1] for step in range(len(rollout.token_ids))]
            assert torch.equal(own, torch.stack([engine.hidden_state(prefix) for prefix in prefixes]))
            # Of a uniform distribution
            assert rollout.mean_log_probability == pytest.approx(-np.log(VOCABULARY))


def test_a_head_is_trained_and_evaluated_on_it(rollouts, tmp_path):
    head, _ = train_head(rollouts, RewardHeadTrainingArguments(learning_rate=0.05, max_epochs=20))
    recording = Recording(head=head)
    unseen = sample_rollouts(
        ScriptedEngine(), None, TinyTask(), tmp_path, prompts=16, skip=40, arguments=ARGUMENTS, recording=recording
    )
    assert unseen.settings["model_sha256"] == "scripted"
    assert evaluate_rollouts(unseen).area_under_curve > 0.99


def test_a_resumed_run_needs_the_same_engine(rollouts):
    class Changed(ScriptedEngine):
        def describe(self):
            return super().describe() | {"script": 2}

    with pytest.raises(ValueError, match=r"different settings \(script differ\)"):
        sample_rollouts(Changed(), None, TinyTask(), rollouts.folder, prompts=40, arguments=ARGUMENTS)


def test_a_head_for_another_engine_is_refused(tmp_path):
    recording = Recording(head=ElhsrRewardHead(ElhsrConfig(hidden_size=3, layers=[0])))
    with pytest.raises(ValueError, match="does not fit the script"):
        sample_rollouts(ScriptedEngine(), None, TinyTask(), tmp_path, recording=recording)


def test_transformers_engine_is_one_and_says_what_it_needs(model):
    assert isinstance(TransformersEngine(enable_best_of_n(model), object()), SamplingEngine)
    with pytest.raises(ValueError, match=r"SamplingEngine, got LlamaForCausalLM: pass enable_best_of_n\(model\)"):
        TransformersEngine(tiny_model(), object())
    with pytest.raises(ValueError, match="needs its tokenizer"):
        TransformersEngine(model, None)


def test_transformers_engine_refuses_what_does_not_fit(model):
    engine = TransformersEngine(enable_best_of_n(model), object())
    engine.check_fits(tiny_head(model))
    with pytest.raises(ValueError, match="hidden size 3"):
        engine.check_fits(ElhsrRewardHead(ElhsrConfig(hidden_size=3, layers=[0], base_model_type="llama")))
