"""sample_rollouts: completions, labels and features or rewards from one pass of the language model."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging
from transformers.utils.logging import tqdm

from .._checks import whole_number
from ..tasks import Problem, Task
from ..tasks.verdict import Verdict
from .disk_budget import RecordingPlan, warn_of_little_room
from .engine import Completion, SamplingArguments, SamplingEngine, TransformersEngine
from .labelling import labels, refuse_unverified
from .recording import Followers, Recording
from .rollout import Rollout
from .rollout_set import RolloutSet, owning_rollouts

logger = logging.get_logger(__name__)


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
    skip_overlong: bool = False,
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
        skip_overlong: Leave out prompts that do not fit the model's context together with `max_new_tokens`, and record
            how many in the set's settings. Default: refuse them.

    Raises:
        ValueError: `skip` is negative, the folder holds rollouts with different settings, the task has too few prompts,
            a duplicate, an empty one or one that does not fit the model's context, a head does not fit the model, the
            disk budget is too small for anything, the verifier failed on every rollout of the first batch, or another
            process is writing into the folder.
        OSError: The folder cannot be written.
    """
    whole_number("prompts", prompts)
    whole_number("skip", skip, at_least=0)
    arguments = SamplingArguments() if arguments is None else arguments
    recording = Recording() if recording is None else recording
    engine = model if isinstance(model, SamplingEngine) else TransformersEngine(model, tokenizer)
    recording.check_fits(engine)
    problems = task.problems(split, skip + prompts)[skip:]
    prompt_ids = [engine.prompt_ids(problem.question) for problem in problems]
    _refuse_empty(problems, prompt_ids)
    _refuse_duplicates(problems, prompt_ids)
    problems, prompt_ids = _within_context(engine, problems, prompt_ids, arguments.max_new_tokens, skip_overlong)
    skipped = prompts - len(problems)
    plan = recording.plan(engine, len(problems) * arguments.n, arguments.max_new_tokens)
    settings: dict[str, Any] = {
        "task": task.name,
        "split": split,
        "prompts": prompts,
        "sampling": dataclasses.asdict(arguments),
        # Everything else that the samples depend on, so that a resumed run does not mix two kinds
        **engine.describe(),
        **_described_prompts(task, skip, skipped),
        "prompts_sha256": _prompts_sha256(engine, problems, prompt_ids, folder),
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
        asked = [problem for problem in batch for _ in range(len(completions) // len(batch))]
        texts = [completion.text for completion in completions]
        found = labels(task, list(zip(asked, texts, strict=True)), settings)
        shard = _labelled(asked, completions, found, followers)
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


def _refuse_empty(problems: list[Problem], prompt_ids: list[list[int]]) -> None:
    empty = [_place(problem) for problem, ids in zip(problems, prompt_ids, strict=True) if not ids]
    if empty:
        raise ValueError(
            f"{len(empty)} of {len(problems)} questions have no tokens, and neither a chat template nor the tokenizer "
            f"adds any, so there is nothing to go on from: {', '.join(empty)}. Remove them, or ask something."
        )


def _within_context(
    engine: SamplingEngine, problems: list[Problem], prompt_ids: list[list[int]], max_new_tokens: int, skip: bool
) -> tuple[list[Problem], list[list[int]]]:
    """The problems whose prompt and completion fit the model's context, and the token ids of their prompts.

    Every sampled token is scored, and so fed to the model, the last one included.

    Raises:
        ValueError: Some do not fit and are not to be skipped, or none fits.
    """
    context_length = getattr(engine, "context_length", None)
    context = None if context_length is None else context_length()
    if context is None:
        return problems, prompt_ids
    paired = list(zip(problems, prompt_ids, strict=True))
    overlong = [(problem, len(ids)) for problem, ids in paired if len(ids) + max_new_tokens > context]
    limit = f"the model's context of {context} tokens with max_new_tokens={max_new_tokens}"
    if overlong and (not skip or len(overlong) == len(problems)):
        longest = max(length for _, length in overlong)
        listed = ", ".join(f"{_place(problem)} ({length} tokens)" for problem, length in overlong)
        advice = f"lower max_new_tokens to at most {context - longest}" if longest < context else "shorten them"
        others = "" if skip else ", or leave them out with skip_overlong=True (`--skip-overlong`)"
        raise ValueError(
            f"{len(overlong)} of {len(problems)} prompts do not fit {limit}: {listed}. The first begins "
            f"{overlong[0][0].question[:60]!r}. To sample, {advice}{others}."
        )
    if overlong:
        logger.warning(f"{len(overlong)} of {len(problems)} prompts are left out, since they do not fit {limit}.")
    kept = [(problem, ids) for problem, ids in paired if len(ids) + max_new_tokens <= context]
    return [problem for problem, _ in kept], [ids for _, ids in kept]


def _place(problem: Problem) -> str:
    return f"problem {problem.id!r}" if problem.row is None else f"row {problem.row}"


def _described_prompts(task: Task, skip: int, skipped_overlong: int) -> dict[str, Any]:
    """The entries of a rollout set's settings that say which prompts were sampled, and what labels them."""
    described: dict[str, Any] = {}
    if labelled_by := getattr(task, "labelled_by", None):
        described["labelled_by"] = labelled_by
    # Absent at zero, so that sets sampled before these options existed can be resumed
    if skip:
        described["skip"] = skip
    if skipped_overlong:
        described["skipped_overlong"] = skipped_overlong
    return described


def _prompts_sha256(
    engine: SamplingEngine, problems: list[Problem], prompt_ids: list[list[int]], folder: str | os.PathLike[str]
) -> str:
    """A hash that distinguishes sets of different prompts."""
    # Nested as batches of one prompt, so that sets on disk keep their hash
    of_token_ids = hashlib.sha256(str([[ids] for ids in prompt_ids]).encode()).hexdigest()
    of_given = getattr(engine, "prompts_sha256", None)
    if of_given is None:
        return of_token_ids
    settings_file = Path(folder) / "settings.json"
    if settings_file.is_file() and RolloutSet(folder).settings.get("prompts_sha256") == of_token_ids:
        # Earlier versions hashed the token ids, which change with a date in the chat template
        return of_token_ids
    digest: str = of_given([problem.question for problem in problems])
    return digest


def _labelled(
    problems: list[Problem], completions: list[Completion], verdicts: list[Verdict], followers: Followers
) -> list[Rollout]:
    rollouts: list[Rollout] = []
    first_row = 0
    for problem, completion, verdict, numbers in zip(problems, completions, verdicts, followers.numbers(), strict=True):
        rollouts.append(
            Rollout(
                problem=problem.id,
                template=problem.template,
                token_ids=completion.token_ids,
                text=completion.text,
                answer=verdict.answer,
                label=verdict.label,
                first_row=first_row,
                verifier_failure=verdict.failure,
                feature_tokens=followers.feature_tokens(len(completion.token_ids)),
                **numbers,
            )
        )
        first_row += rollouts[-1].num_rows
    return rollouts
