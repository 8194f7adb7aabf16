"""sample_rollouts: completions, labels and features or rewards from one pass of the language model."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import tqdm

from ..tasks import Problem, Task
from .disk_budget import RecordingPlan, warn_of_little_room
from .engine import Completion, SamplingArguments, SamplingEngine, TransformersEngine
from .labelling import refuse_unverified, verdict
from .recording import Followers, Recording
from .rollout import Rollout
from .rollout_set import RolloutSet, owning_rollouts


def sample_rollouts(
    model: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task,
    folder: str | os.PathLike[str],
    *,
    split: str = "train",
    prompts: int = 400,
    skip: int = 0,
    arguments: SamplingArguments | None = None,
    recording: Recording | None = None,
) -> RolloutSet:
    """Sample rollouts of a task's prompts and store them with labels, and with features or rewards.

    An interrupted run is resumed by the same call, with the result of an uninterrupted one. A run whose verifier fails
    on all of its first batch ends there, and nothing of the batch is written.

    Args:
        model: A language model with [`enable_best_of_n`], or any other [`SamplingEngine`].
        tokenizer: The language model's; None with an engine.
        task: The source of prompts and labels.
        folder: The folder for the rollouts; created if it does not exist.
        split: The task's split, e.g. "train".
        prompts: How many prompts of the split to sample.
        skip: Skip this many prompts at the start of the split, e.g. those that an earlier head was measured on.
        arguments: How completions are sampled. Default: `SamplingArguments()`.
        recording: What is kept of the tokens. Default: the features that a new head is trained on;
            `Recording(head=head)` for a head's rewards.

    Raises:
        ValueError: `skip` is negative, the folder holds rollouts with different settings, the task has too few prompts
            or a duplicate, a head does not fit the model, the disk budget is too small for anything, the verifier
            failed on every rollout of the first batch, or another process is writing into the folder.
        OSError: The folder cannot be written.
    """
    if skip < 0:
        raise ValueError(f"skip={skip}: expected how many prompts to leave out, 0 or more.")
    arguments = SamplingArguments() if arguments is None else arguments
    recording = Recording() if recording is None else recording
    engine = model if isinstance(model, SamplingEngine) else TransformersEngine(model, tokenizer)
    recording.check_fits(engine)
    problems = task.problems(split, skip + prompts)[skip:]
    prompt_ids = [engine.prompt_ids(problem.question) for problem in problems]
    _refuse_duplicates(problems, prompt_ids)
    plan = recording.plan(engine, prompts * arguments.n, arguments.max_new_tokens)
    settings: dict[str, Any] = {
        "task": task.name,
        "split": split,
        "prompts": prompts,
        "sampling": dataclasses.asdict(arguments),
        # Everything else that the samples depend on, so that a resumed run does not mix two kinds
        **engine.describe(),
        **_described_prompts(task, skip, prompt_ids),
        **recording.describe(engine, plan),
    }
    with owning_rollouts(Path(folder)):
        return _sample_missing(folder, settings, engine, task, problems, arguments, recording, plan)


def _sample_missing(
    folder: str | os.PathLike[str],
    settings: dict[str, Any],
    engine: SamplingEngine,
    task: Task,
    problems: list[Problem],
    arguments: SamplingArguments,
    recording: Recording,
    plan: RecordingPlan,
) -> RolloutSet:
    """Sample the shards that the folder does not have yet."""
    rollouts = RolloutSet.create(folder, settings, plan.config)
    size = arguments.prompts_per_batch
    batches = [problems[start : start + size] for start in range(0, len(problems), size)]
    missing = sum(not rollouts.has_shard(index) for index in range(len(batches)))
    warn_of_little_room(rollouts.folder, recording.most_bytes(plan, missing * size, arguments))
    followers = Followers(recording, plan)
    any_verified = False
    for index, batch in enumerate(tqdm(batches, desc=f"Sampling {task.name} ({settings['split']})", unit="batch")):
        if rollouts.has_shard(index):
            continue
        questions = [problem.question for problem in batch]
        completions = engine.sample(questions, arguments, arguments.seed_of_batch(index), followers.processors)
        shard = _labelled(task, batch, completions, followers)
        if not any_verified:
            # Before hours are spent on rollouts without a label
            refuse_unverified(shard)
            any_verified = True
        rollouts.write_shard(index, shard, **followers.arrays([len(rollout.token_ids) for rollout in shard]))
    return rollouts


def _refuse_duplicates(problems: list[Problem], prompt_ids: list[list[int]]) -> None:
    """Refuse problems with the same id or prompt: a head must not be measured on prompts that it was trained on."""
    first: dict[object, Problem] = {}
    for problem, ids in zip(problems, prompt_ids, strict=True):
        for key in (problem.id, tuple(ids)):
            if key in first:
                raise ValueError(
                    f"The task's problem {problem.id!r} is a duplicate of {first[key].id!r}, by its id or its prompt. "
                    "Training could hold out a prompt that it learns from: keep only one of them."
                )
            first[key] = problem


def _described_prompts(task: Task, skip: int, prompt_ids: list[list[int]]) -> dict[str, Any]:
    """The entries of a rollout set's settings that identify the prompts and the verifier."""
    # Nested as batches of one prompt, so that sets on disk keep their hash
    described: dict[str, Any] = {
        "prompts_sha256": hashlib.sha256(str([[ids] for ids in prompt_ids]).encode()).hexdigest()
    }
    if labelled_by := getattr(task, "labelled_by", None):
        described["labelled_by"] = labelled_by
    if skip:
        # Absent at zero, so that sets sampled before this option existed can be resumed
        described["skip"] = skip
    return described


def _labelled(
    task: Task, problems: list[Problem], completions: list[Completion], followers: Followers
) -> list[Rollout]:
    n = len(completions) // len(problems)
    rollouts: list[Rollout] = []
    first_row = 0
    for number, (completion, numbers) in enumerate(zip(completions, followers.numbers(), strict=True)):
        problem = problems[number // n]
        label, answer, failure = verdict(task, problem, completion.text)
        rollouts.append(
            Rollout(
                problem=problem.id,
                template=problem.template,
                token_ids=completion.token_ids,
                text=completion.text,
                answer=answer,
                label=label,
                first_row=first_row,
                verifier_failure=failure,
                feature_tokens=followers.feature_tokens(len(completion.token_ids)),
                **numbers,
            )
        )
        first_row += rollouts[-1].num_rows
    return rollouts
