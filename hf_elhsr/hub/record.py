"""read_record: a head's training.json, which says on which prompts the head was trained and calibrated."""

import json
from pathlib import Path
from typing import Any

#: What is said where [`order_changed`].
OTHER_ROWS = (
    "The file of this task had other rows when the head learned from this split of it, and the order of its prompts "
    "depends on all of them, so which prompts the head has seen cannot be told: take the other split, or the file as "
    "it was."
)


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
        if any(_shared_prompts(settings, other) for other in sets):
            return done
    return None


def _shared_prompts(one: dict[str, Any], other: dict[str, Any]) -> int:
    """How many prompts the settings of two sets name both: those of a split come in one order."""
    if any(one.get(name) != other.get(name) for name in ("task", "split")):
        return 0
    first, second = (
        range(settings.get("skip", 0), settings.get("skip", 0) + settings["prompts"]) for settings in (one, other)
    )
    return len(range(max(first.start, second.start), min(first.stop, second.stop)))


def order_changed(record: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether the rows of a set's file were others when the head learned from the same split of it.

    The order of prompts depends on all rows, so [`known_as`] cannot tell which of them the head has seen.

    Args:
        settings: Of the set: `task`, `split`, and `labelled_by` where its task has it.
    """
    return any(
        all(settings.get(name) == other.get(name) for name in ("task", "split"))
        and _rows(settings) is not None
        and _rows(settings) != _rows(other)
        for other in (*trained_on(record), *calibrated_on(record))
    )


def _rows(settings: dict[str, Any]) -> str | None:
    """What tells the rows of a file from others; None for tasks that are of none."""
    digest: str | None = (settings.get("labelled_by") or {}).get("rows_sha256")
    return digest


def _names_prompts(rollouts: dict[str, Any]) -> bool:
    texts, counts = (rollouts.get("task"), rollouts.get("split")), (rollouts.get("prompts"), rollouts.get("skip", 0))
    return all(isinstance(text, str) for text in texts) and all(isinstance(count, int) for count in counts)
