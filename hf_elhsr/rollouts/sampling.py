"""Sampling rollouts: completions, labels and features from one pass of the language model."""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..configuration_elhsr import ElhsrConfig
from ..rewards import RunningLogProbability
from .feature_recorder import FeatureRecorder
from .prompts import encode_prompts
from .rollout_set import Rollout, RolloutSet
from .task import Task

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class SamplingSettings:
    """How completions are sampled; the names and meanings are generate's.

    Args:
        n: Completions per prompt.
        prompts_per_batch: Prompts decoded together, and stored as one shard. Part of what a seed reproduces.
        seed: Of the random numbers; every batch gets its own, so that a resumed run goes on as if never stopped.
    """

    n: int = 8
    temperature: float = 0.8
    top_p: float = 0.9
    top_k: int = 0
    max_new_tokens: int = 64
    prompts_per_batch: int = 16
    seed: int = 0

    def generate_kwargs(self) -> dict[str, Any]:
        """The part that `generate` takes."""
        names = ("temperature", "top_p", "top_k", "max_new_tokens")
        return {name: getattr(self, name) for name in names}

    def seed_of_batch(self, batch: int) -> int:
        return self.seed * 1_000_003 + batch


def sample_rollouts(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    count: int,
    folder: str | os.PathLike[str],
    config: ElhsrConfig | None = None,
    settings: SamplingSettings = SamplingSettings(),
    split: str = "train",
) -> RolloutSet:
    """Sample rollouts for `count` prompts of a task and store them with labels and features.

    A run that was stopped goes on where it was, with the same result as if it had not been.

    Args:
        model: A language model with [`enable_best_of_n`].
        config: Of the head to be trained: says which layers to record. Default: [`ElhsrConfig.for_model`].

    Raises:
        ValueError: The folder holds rollouts with other settings, or the task has too few prompts.
    """
    config = ElhsrConfig.for_model(model) if config is None else config
    problems = task.problems(split, count)
    described = {"task": task.name, "split": split, "prompts": count, "sampling": dataclasses.asdict(settings)}
    rollouts = RolloutSet.create(folder, described, config)
    batches = [problems[i : i + settings.prompts_per_batch] for i in range(0, count, settings.prompts_per_batch)]
    recorder, log_probability = FeatureRecorder(config.layers), RunningLogProbability()
    for index, batch in enumerate(tqdm(batches, desc=f"Sampling {task.name} ({split})", unit="batch")):
        if rollouts.has_shard(index):
            continue
        inputs = encode_prompts(tokenizer, [problem.question for problem in batch]).to(model.device)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed_of_batch(index))
            candidates = model.sample_candidates(
                **inputs, n=settings.n, signal_processor=[recorder, log_probability], **settings.generate_kwargs()
            )
        means = log_probability.mean.view(len(batch), settings.n).tolist()
        shard: list[Rollout] = []
        first_row = 0
        for row, problem in enumerate(batch):
            for column in range(settings.n):
                token_ids = candidates.completion(row, column).tolist()
                text = tokenizer.decode(token_ids, skip_special_tokens=True)
                shard.append(
                    Rollout(
                        problem=problem.id,
                        template=problem.template,
                        token_ids=token_ids,
                        text=text,
                        answer=task.extract(text),
                        label=task.verify(problem, text),
                        mean_log_probability=means[row][column],
                        first_row=first_row,
                    )
                )
                first_row += len(token_ids)
        rollouts.write_shard(index, shard, recorder.features())
    return rollouts
