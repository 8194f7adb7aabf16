"""read_record: a head's training.json, which says on which prompts the head was trained and calibrated."""

import json
from pathlib import Path
from typing import Any

from ..rollouts.rollout_set import shared_prompts


def read_record(folder: Path) -> dict[str, Any]:
    """What training.json in a head's folder says; empty where there is none.

    Raises:
        ValueError: It does not name the prompts of every set of rollouts.
    """
    file = folder / "training.json"
    if not file.is_file():
        return {}
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        sets = [record["rollouts"], *trained_on(record), *calibrated_on(record)]
        damaged = [rollouts for rollouts in sets if not _names_prompts(rollouts)]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged_record(folder, error) from error
    if damaged:
        raise damaged_record(folder, f"rollouts without task, split and number of prompts: {damaged[0]!r}")
    return record


def damaged_record(folder: Path, what: Exception | str) -> ValueError:
    """The error for a training.json that is something else."""
    said = what if isinstance(what, str) else f"{type(what).__name__}: {what}"
    return ValueError(
        f"{str(folder / 'training.json')!r} is no record of a training: expected what `hf-elhsr train` wrote ({said})."
    )


def trained_on(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of every set of rollouts that a head has learned from; held-out prompts are among them."""
    first = [record["rollouts"]] if record else []
    return [*first, *record.get("refit", {}).get("rollouts", [])]


def calibrated_on(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of the rollouts that its decisions were fitted on by `hf-elhsr calibrate`, if they were."""
    return [record["calibrate"]] if "calibrate" in record else []


def known_as(record: dict[str, Any], settings: dict[str, Any]) -> str | None:
    """What was done on some of the prompts of a set: the head "trained", or "calibrated"; None for unseen ones.

    Args:
        settings: Of the set: `task`, `split`, `prompts`, and `skip` if it is not 0.
    """
    for done, sets in (("trained", trained_on(record)), ("calibrated", calibrated_on(record))):
        if any(shared_prompts(settings, other) for other in sets):
            return done
    return None


def _names_prompts(rollouts: dict[str, Any]) -> bool:
    texts, counts = (rollouts.get("task"), rollouts.get("split")), (rollouts.get("prompts"), rollouts.get("skip", 0))
    return all(isinstance(text, str) for text in texts) and all(isinstance(count, int) for count in counts)
