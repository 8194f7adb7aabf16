"""`hf-elhsr relabel`."""

from pathlib import Path
from typing import Annotated

import typer

from ..rollouts import RolloutSet, relabel_rollouts
from ..tasks import find_task
from .options import Extract, Json, Task, Verifier
from .paths import expanded
from .result import show_rollouts


def relabel(
    rollouts: Annotated[
        Path, typer.Argument(help="Folder made by `hf-elhsr sample` or `evaluate`.", callback=expanded)
    ],
    task: Task,
    verifier: Verifier = None,
    extract: Extract = None,
    as_json: Json = False,
) -> None:
    """Label rollouts again, with a verifier that was fixed.

    Nothing is sampled, and features are kept. If this command is stopped, the rollouts cannot be used until the same
    command has run again.
    """
    before = [rollout.label for rollout in RolloutSet(rollouts).rollouts()]
    labelled = relabel_rollouts(rollouts, find_task(task, verifier, extract))
    after = [rollout.label for rollout in labelled.rollouts()]
    changed = sum(one != other for one, other in zip(before, after, strict=True))
    show_rollouts(as_json, labelled, {"changed": changed})
