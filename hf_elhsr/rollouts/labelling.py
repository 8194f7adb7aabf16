"""Labels of sampled texts: `labels` finds those of a shard, and relabel_rollouts verifies a whole set again."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from transformers.utils import logging
from transformers.utils.logging import tqdm

from .._visible_text import visible
from ..tasks import Problem, Task
from ..tasks.verdict import Verdict
from ..tasks.verification import verdicts
from .rollout import Rollout
from .rollout_set import RolloutSet, owning_rollouts

logger = logging.get_logger(__name__)


def labels(task: Task, texts: list[tuple[Problem, str]], settings: dict[str, Any]) -> list[Verdict]:
    """The labels and final answers of completions; where the verifier failed, the reason.

    Args:
        task: The task.
        texts: Problems, each with a completion.
        settings: Those that are stored with the rollouts; "begins_thoughts" says that prompts end in `<think>`.
    """
    found = verdicts(task, texts, in_thought=bool(settings.get("begins_thoughts")))
    for verdict in found:
        if verdict.failure is not None:
            # All of them are counted where the rollouts are used
            logger.info(f"The verifier failed, so a rollout gets no label. {visible(verdict.failure)}")
    return found


def refuse_unverified(shard: list[Rollout]) -> None:
    """Refuse a verifier that fails on every rollout.

    Raises:
        ValueError: Not one of these rollouts could be verified.
    """
    if all(rollout.label is None for rollout in shard):
        raise ValueError(
            f"The verifier failed on each of the first {len(shard)} rollouts, so none of them was written. Fix "
            f"the verifier, and run the command again. The first failure: {visible(str(shard[0].verifier_failure))}"
        )


def relabel_rollouts(folder: str | os.PathLike[str], task: Task) -> RolloutSet:
    """Label all rollouts in a folder again with the task's current verifier; nothing is sampled, and features stay.

    An interrupted run leaves a set that is refused until this function has run again, from the start.

    Args:
        folder: The folder of the rollouts.
        task: The task that they were sampled for, with a verifier that may have changed.

    Returns:
        The rollouts with the new labels.

    Raises:
        ValueError: The folder holds no rollouts, or those of a different task or of different prompts; or the verifier
            failed on every rollout of the first shard, before anything was changed; or another process is writing into
            the folder.
        OSError: The folder cannot be written.
    """
    # Before the lock, which would create a folder
    RolloutSet(folder)
    with owning_rollouts(Path(folder)):
        return _relabel(folder, task)


def _relabel(folder: str | os.PathLike[str], task: Task) -> RolloutSet:
    rollouts = RolloutSet(folder)
    settings = rollouts.settings
    if task.name != settings["task"]:
        raise ValueError(f"{str(folder)!r} holds rollouts of the task {settings['task']!r}, not of {task.name!r}.")
    skip = settings.get("skip", 0)
    problems = {problem.id: problem for problem in task.problems(settings["split"], skip + settings["prompts"])[skip:]}
    sampled = list(dict.fromkeys(rollout.problem for rollout in rollouts.rollouts()))
    if not sampled:
        raise ValueError(f"{str(folder)!r} holds no rollouts yet: there is nothing to label.")
    if unknown := sum(problem not in problems for problem in sampled):
        raise ValueError(
            f"{unknown} of the {len(sampled)} prompts in {str(folder)!r} are not among the task's, so their rollouts "
            "cannot be labelled: pass the task with the prompts that were sampled."
        )
    begun = False
    for shard, file in tqdm(list(rollouts.shards()), desc=f"Verifying {task.name}", unit="shard"):
        found = labels(task, [(problems[rollout.problem], rollout.text) for rollout in shard], settings)
        labelled = [
            dataclasses.replace(rollout, label=verdict.label, answer=verdict.answer, verifier_failure=verdict.failure)
            for rollout, verdict in zip(shard, found, strict=True)
        ]
        if not begun:
            refuse_unverified(labelled)
            rollouts.begin_relabelling()
            begun = True
        rollouts.write_labels(file, labelled)
    rollouts.end_relabelling(getattr(task, "labelled_by", None))
    return rollouts
