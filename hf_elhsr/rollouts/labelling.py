"""Labels of sampled texts: `verdict` labels one of them, and relabel_rollouts verifies a whole set again."""

import dataclasses
import os
from pathlib import Path

from transformers.utils import logging
from transformers.utils.logging import tqdm

from ..tasks import Problem, Task, VerifierFailure, verify
from .rollout import Rollout
from .rollout_set import RolloutSet, owning_rollouts

logger = logging.get_logger(__name__)


def verdict(task: Task, problem: Problem, text: str) -> tuple[bool | None, str | None, str | None]:
    """The label and the final answer of a text; and, if the verifier failed, the reason."""
    try:
        label, answer = verify(task, problem, text)
    except VerifierFailure as failure:
        # All of them are counted where the rollouts are used
        logger.info(f"The verifier failed, so a rollout gets no label. {failure}")
        return None, None, str(failure)
    return label, answer, None


def refuse_unverified(shard: list[Rollout]) -> None:
    """Refuse a verifier that fails on every rollout.

    Raises:
        ValueError: Not one of these rollouts could be verified.
    """
    if all(rollout.label is None for rollout in shard):
        raise ValueError(
            f"The verifier failed on each of the first {len(shard)} rollouts, so none of them was written. Fix "
            f"the verifier, and run the command again. The first failure: {shard[0].verifier_failure}"
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
        labelled = []
        for rollout in shard:
            label, answer, failure = verdict(task, problems[rollout.problem], rollout.text)
            labelled.append(dataclasses.replace(rollout, label=label, answer=answer, verifier_failure=failure))
        if not begun:
            refuse_unverified(labelled)
            rollouts.begin_relabelling()
            begun = True
        rollouts.write_labels(file, labelled)
    rollouts.end_relabelling(getattr(task, "labelled_by", None))
    return rollouts
