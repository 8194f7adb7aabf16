"""show: print a command's result, for people or as JSON, on standard output, which has nothing else."""

import json
import math
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.markup import escape

from .._visible_text import visible
from ..rollouts import RolloutSet

console = Console()
#: For all other output, so that results can be piped.
messages = Console(stderr=True)


def show(as_json: bool, data: dict[str, Any], *for_people: RenderableType) -> None:
    """Print a command's result.

    Args:
        as_json: Print `data` as one JSON object in ASCII, and nothing for people.
        data: JSON values; numbers that are not finite, which JSON does not have, become null.
        for_people: Sentences, in rich's markup, and tables.
    """
    if as_json:
        typer.echo(json.dumps(_finite(data), indent=2, allow_nan=False))
        return
    for part in for_people:
        # Lines of sentences are not broken here, so that a path in them stays whole in a pipe
        console.print(part, soft_wrap=isinstance(part, str), highlight=not isinstance(part, str))


def show_rollouts(as_json: bool, rollout_set: RolloutSet, more: dict[str, int]) -> None:
    """Print how many rollouts a set has, and how many are correct.

    Args:
        more: Further numbers by their names.
    """
    rollouts = rollout_set.rollouts()
    prompts = len({rollout.problem for rollout in rollouts})
    correct = sum(rollout.label is True for rollout in rollouts)
    failed = [rollout.verifier_failure for rollout in rollouts if rollout.label is None]
    counts = "".join(f", {number} {name}" for name, number in more.items())
    if overlong := rollout_set.settings.get("skipped_overlong"):
        more = more | {"skipped_overlong": overlong}
        counts += f", {overlong} overlong prompts skipped"
    show(
        as_json,
        {
            "folder": str(rollout_set.folder),
            "prompts": prompts,
            "rollouts": len(rollouts),
            "correct": correct,
            "verifier_failures": failed,
            **more,
        },
        f"{len(rollouts)} rollouts of {prompts} prompts in {escape(str(rollout_set.folder))}, "
        f"{correct / max(1, len(rollouts) - len(failed)):.1%} correct{counts}"
        + (f"; the verifier failed on {len(failed)}, first with: {escape(visible(str(failed[0])))}" if failed else "."),
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
