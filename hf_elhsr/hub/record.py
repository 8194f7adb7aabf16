"""TrainingRecord: a head's training.json, which says on which prompts the head was trained and calibrated, and how."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._checks import is_whole_number
from .._files import write_text
from ..head.files import current_file
from ..rollouts import RolloutSet
from ..training import RewardHeadTrainingArguments, TrainingReport
from ..training.refit import RefitReport

_FILE = "training.json"

#: The message for [`TrainingRecord.order_changed`].
OTHER_ROWS = (
    "The file of this task had other rows when the head learned from this split of it, and the order of its prompts "
    "depends on all rows, so it is unknown which prompts the head has seen: use the other split, or the file as it was."
)


@dataclass(frozen=True)
class TrainingRecord:
    """From which rollouts a head was made, and how. Sets of rollouts are recorded by their settings.

    Args:
        contents: What training.json holds, by name: the `rollouts` of the training, its `settings` and its `report`;
            after a refit `refit`, with its `rollouts` and its `report`; after `hf-elhsr calibrate` the rollouts
            `calibrate`. Empty for a head without a record. Other names are kept.
    """

    contents: dict[str, Any]

    @classmethod
    def of_training(
        cls, rollouts: RolloutSet, arguments: RewardHeadTrainingArguments, report: TrainingReport
    ) -> "TrainingRecord":
        """The record of a head that was trained just now."""
        settings, happened = dataclasses.asdict(arguments), dataclasses.asdict(report)
        return cls({"rollouts": _settings_of(rollouts), "settings": settings, "report": happened})

    def refitted(self, pooled: Sequence[RolloutSet], report: RefitReport) -> "TrainingRecord":
        """The record after a refit, which fits decisions on the held-out prompts again."""
        refit = {"rollouts": [_settings_of(rollouts) for rollouts in pooled], "report": dataclasses.asdict(report)}
        return TrainingRecord({**_without(self.contents, "calibrate"), "refit": refit})

    def calibrated(self, rollouts: RolloutSet) -> "TrainingRecord":
        """The record after the decisions were fitted on these rollouts."""
        return TrainingRecord({**self.contents, "calibrate": _settings_of(rollouts)})

    @classmethod
    def read(cls, folder: Path) -> "TrainingRecord":
        """Read the record in a head's folder; it is empty if there is none.

        Raises:
            ValueError: It does not name the prompts of every set of rollouts.
        """
        try:
            record = cls(json.loads(current_file(folder, _FILE).read_text(encoding="utf-8")))
            damaged = [
                rollouts
                for rollouts in (record.rollouts, *record.trained_on, *record.calibrated_on)
                if not _names_prompts(rollouts)
            ]
        except (FileNotFoundError, NotADirectoryError):
            return cls({})
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise damaged_record(folder, error) from error
        if damaged:
            raise damaged_record(folder, f"rollouts without task, split and number of prompts: {damaged[0]!r}")
        return record

    def write(self, folder: Path) -> None:
        """Write the record into a head's folder."""
        write_text(folder / _FILE, json.dumps(self.contents, indent=2) + "\n")

    @property
    def rollouts(self) -> dict[str, Any]:
        """The rollouts of the training."""
        rollouts: dict[str, Any] = self.contents["rollouts"]
        return rollouts

    @property
    def settings(self) -> dict[str, Any]:
        """The training arguments, see [`RewardHeadTrainingArguments`]; later ones may be missing."""
        settings: dict[str, Any] = self.contents["settings"]
        return settings

    @property
    def report(self) -> dict[str, Any]:
        """What happened in training, see [`TrainingReport`]."""
        report: dict[str, Any] = self.contents["report"]
        return report

    @property
    def refit(self) -> dict[str, Any] | None:
        """The further `rollouts` of a refit and its `report`."""
        return self.contents.get("refit")

    @property
    def calibrate(self) -> dict[str, Any] | None:
        """The rollouts that decisions were fitted on by `hf-elhsr calibrate`."""
        return self.contents.get("calibrate")

    @property
    def trained_on(self) -> list[dict[str, Any]]:
        """All rollouts that the head has learned from; held-out prompts are among them."""
        first = [self.rollouts] if self.contents else []
        return first + (self.refit["rollouts"] if self.refit else [])

    @property
    def calibrated_on(self) -> list[dict[str, Any]]:
        """All rollouts that decisions were fitted on besides those."""
        return [self.calibrate] if self.calibrate else []

    def known_as(self, settings: dict[str, Any]) -> str | None:
        """Whether the head was "trained" or "calibrated" on some of the prompts of a set; None for unseen prompts.

        Args:
            settings: The set's settings: `task`, `split`, `prompts`, and `skip` if it is not 0.
        """
        for done, sets in (("trained", self.trained_on), ("calibrated", self.calibrated_on)):
            if any(_shares_prompts(settings, other) for other in sets):
                return done
        return None

    def order_changed(self, settings: dict[str, Any]) -> bool:
        """Whether a set's file had other rows when the head learned from the same split of it.

        The order of prompts depends on all rows, so [`known_as`] cannot say which of them the head has seen.

        Args:
            settings: The set's settings: `task`, `split`, and `labelled_by` where its task has it.
        """
        return any(
            all(settings.get(name) == other.get(name) for name in ("task", "split"))
            and _rows(settings) is not None
            and _rows(settings) != _rows(other)
            for other in (*self.trained_on, *self.calibrated_on)
        )

    def differences(self, rollouts: RolloutSet) -> list[str]:
        """The settings in which a set differs from the rollouts of the training.

        Labels may have been corrected since; which prompts are held out does not depend on them.
        """
        recorded, given = self.rollouts, _settings_of(rollouts)
        names = (recorded.keys() | given.keys()) - {"labelled_by"}
        return sorted(name for name in names if recorded.get(name) != given.get(name))


def damaged_record(folder: Path, what: Exception | str) -> ValueError:
    """The error for a training.json that is something else."""
    said = what if isinstance(what, str) else f"{type(what).__name__}: {what}"
    return ValueError(
        f"{str(folder / _FILE)!r} is not the record of a training: expected what `hf-elhsr train` wrote ({said})."
    )


def _settings_of(rollouts: RolloutSet) -> dict[str, Any]:
    return _without(rollouts.settings, "head_config")


def _without(contents: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in contents.items() if key != name}


def _shares_prompts(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two sets have a prompt in common: the prompts of a split always come in the same order."""
    if any(one.get(name) != other.get(name) for name in ("task", "split")):
        return False
    first, second = (
        range(settings.get("skip", 0), settings.get("skip", 0) + settings["prompts"]) for settings in (one, other)
    )
    return max(first.start, second.start) < min(first.stop, second.stop)


def _rows(settings: dict[str, Any]) -> str | None:
    """The digest of a file's rows; None for tasks that do not read a file."""
    digest: str | None = (settings.get("labelled_by") or {}).get("rows_sha256")
    return digest


def _names_prompts(rollouts: dict[str, Any]) -> bool:
    texts, counts = (rollouts.get("task"), rollouts.get("split")), (rollouts.get("prompts"), rollouts.get("skip", 0))
    return all(isinstance(text, str) for text in texts) and all(is_whole_number(count, at_least=0) for count in counts)
