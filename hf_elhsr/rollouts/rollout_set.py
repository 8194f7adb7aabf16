"""RolloutSet: rollouts with labels, and what was recorded of every token, in a folder, shard by shard.

    settings.json               what was sampled, from which model and how, and the configuration of the head: the one
                                to be trained on the features, or the one that scored the rollouts
    shard-00000.jsonl           one rollout per line
    shard-00000.safetensors     what was recorded of the shard's tokens, one rollout after the other: `features`
                                (tokens, L * d); or the arrays of TOKEN_ARRAYS, (tokens,) float32 each, and optionally
                                `pooled_features` (rollouts, L * d), weighted with a head's gates, with `prefix_means`
                                (prefixes, L * d) and `prefix_rollouts`, the position in the shard of each one's rollout

A shard is complete once its .jsonl exists: it is written last, under a temporary name, and then renamed. So a killed
run leaves whole shards, and sampling resumes with the first missing one.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from .._checks import is_whole_number
from .._files import remove_leftovers, write_arrays, write_text
from .._locks import owning
from .._visible_text import visible
from ..head.configuration_elhsr import DECISIONS, ElhsrConfig
from ..transformers_internals import LOADED_FROM
from .rollout import Rollout

logger = logging.get_logger(__name__)


class RolloutSet:
    """The rollouts in a folder; see the module's docstring for the files.

    Args:
        folder: The folder of the rollouts.

    Raises:
        ValueError: The folder holds no rollout set, or its settings are damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        settings_file = self.folder / "settings.json"
        if not settings_file.is_file():
            raise ValueError(
                f"{str(folder)!r} holds no rollouts (no settings.json): sample some with `hf-elhsr sample`."
            )
        try:
            self.settings: dict[str, Any] = json.loads(settings_file.read_text(encoding="utf-8"))
            self.config = ElhsrConfig.from_dict(self.settings["head_config"])
            _check_settings(self.settings)
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(
                f"{str(settings_file)!r} does not hold the settings of rollouts ({type(error).__name__}: {error}): it "
                "is damaged, or was written by a later version."
            ) from error

    @classmethod
    def create(cls, folder: str | os.PathLike[str], settings: dict[str, Any], config: ElhsrConfig) -> "RolloutSet":
        """Create a set, or open the one in the folder if it has the same settings; one without shards is replaced.

        Args:
            folder: The folder for the rollouts; created if it does not exist.
            settings: What is sampled and how, as JSON values.
            config: The configuration of the head to be trained on the features, or of the head that scores the
                rollouts.

        Raises:
            ValueError: The folder holds rollouts sampled with different settings, or a set relabelled in part.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        wanted = json.loads(json.dumps({**settings, "head_config": _described(config)}))
        if (folder / "settings.json").is_file():
            present = cls(folder)
            # Through the class, so that a field that a later version added counts as its default
            there = present.settings | {"head_config": json.loads(json.dumps(_described(present.config)))}
            if "model_sha256" in wanted:
                # Sets sampled before it was recorded are resumed
                there.setdefault("model_sha256", wanted["model_sha256"])
            different = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
            if not different:
                return present
            if any(folder.glob("shard-*.jsonl")):
                present.refuse_half_relabelled()
                relabel = " To resume with different labels, first run `hf-elhsr relabel` on the existing rollouts."
                raise ValueError(
                    f"{str(folder)!r} holds rollouts sampled with different settings ({', '.join(different)} differ): "
                    "use a different folder, or pass the same settings to resume it."
                    f"{relabel if different == ['labelled_by'] else ''}"
                )
        write_text(folder / "settings.json", json.dumps(wanted, indent=2) + "\n")
        return cls(folder)

    def has_shard(self, index: int) -> bool:
        """Whether the shard was written."""
        return self._records_file(index).is_file()

    def write_shard(
        self,
        index: int,
        rollouts: list[Rollout],
        features: torch.Tensor | None = None,
        token_arrays: dict[str, torch.Tensor] | None = None,
        pooled_features: torch.Tensor | None = None,
        prefix_means: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        """Write a shard whole or not at all.

        Args:
            features: (tokens, L * d), if recorded.
            token_arrays: By the names of TOKEN_ARRAYS, (tokens,) float32 each, if recorded.
            pooled_features: (rollouts, L * d), if recorded.
            prefix_means: (prefixes, L * d) and (prefixes,), the rollout of each, if recorded.

        Raises:
            ValueError: The rows are not one for every recorded token, or for every rollout.
            OSError: The shard cannot be written, for example because the disk is full.
        """
        arrays = {} if features is None else {"features": features}
        arrays |= token_arrays or {}
        expected = sum(rollout.num_rows for rollout in rollouts)
        for name, array in arrays.items():
            if len(array) != expected:
                raise ValueError(f"Shard {index} has {expected} recorded tokens but {len(array)} rows of {name}.")
        if pooled_features is not None:
            if len(pooled_features) != len(rollouts):
                raise ValueError(
                    f"Shard {index} has {len(rollouts)} rollouts but {len(pooled_features)} pooled features."
                )
            arrays["pooled_features"] = pooled_features
        if prefix_means is not None:
            arrays["prefix_means"], arrays["prefix_rollouts"] = prefix_means
        if arrays:
            write_arrays(self._arrays_file(index), arrays)
        _write_records(self._records_file(index), rollouts)

    def begin_relabelling(self) -> None:
        """Mark the set, so that it is refused while its labels may come from two verifiers."""
        self._write_settings(self.settings | {"relabelling": True})

    def write_labels(self, file: Path, rollouts: list[Rollout]) -> None:
        """Write the rollouts of a shard again, with other labels; what was recorded of their tokens stays.

        Args:
            file: The shard's, from [`shards`].
            rollouts: Of the whole shard.
        """
        _write_records(file.with_suffix(".jsonl"), rollouts)

    def end_relabelling(self, labelled_by: dict[str, str] | None) -> None:
        """Remove the mark, and record the verifier that all labels come from, where it is described."""
        others = {name: value for name, value in self.settings.items() if name not in ("relabelling", "labelled_by")}
        self._write_settings(others | ({"labelled_by": labelled_by} if labelled_by else {}))

    def refuse_half_relabelled(self) -> None:
        """Refuse a set whose relabelling was interrupted.

        Raises:
            ValueError: Its labels may come from two verifiers.
        """
        if self.settings.get("relabelling"):
            raise ValueError(
                f"The relabelling of {str(self.folder)!r} was interrupted, so its labels may come from two verifiers: "
                "run the `hf-elhsr relabel` command again."
            )

    def check_complete(self) -> None:
        """Refuse a set whose sampling was interrupted or that has a duplicate prompt; warn if the verifier failed.

        Raises:
            ValueError: Prompts are missing or duplicates, or labels may come from two verifiers.
        """
        self.refuse_half_relabelled()
        seen: set[str] = set()
        failures: list[Rollout] = []
        for shard, file in self.shards():
            failures += [rollout for rollout in shard if rollout.label is None]
            problems = {rollout.problem for rollout in shard}
            self._check_shard(shard, problems, file.with_suffix(".jsonl"))
            if problems & seen:
                raise ValueError(
                    f"{str(file.with_suffix('.jsonl'))!r} has prompts that are also in another shard: sample again."
                )
            seen |= problems
        wanted = self._sampled_prompts
        if len(seen) != wanted:
            raise ValueError(
                f"{str(self.folder)!r} has rollouts of {len(seen)} of {wanted} prompts: run the command that samples "
                "them again, and it resumes where it stopped."
            )
        if failures:
            prompts = len({rollout.problem for rollout in failures})
            logger.warning(
                f"{prompts} of {wanted} prompts are left out, since the verifier failed on {len(failures)} of their "
                f"rollouts. The first failure: {visible(str(failures[0].verifier_failure))}"
            )

    def _check_shard(self, shard: list[Rollout], problems: set[str], file: Path) -> None:
        """Refuse a shard that was cut short: it counts as sampled, so the rest would never be sampled."""
        sampling = self.settings.get("sampling", {})
        if "prompts_per_batch" not in sampling:
            # The set is not from [`sample_rollouts`], so it is unknown how many rollouts a shard has
            return
        size, n = sampling["prompts_per_batch"], sampling["n"]
        prompts = min(size, self._sampled_prompts - size * int(file.stem.removeprefix("shard-")))
        if (len(problems), len(shard)) != (prompts, prompts * n):
            raise ValueError(
                f"Expected {prompts * n} rollouts of {prompts} prompts in {str(file)!r}, got {len(shard)} of "
                f"{len(problems)}: it is damaged. Delete it and run the command that sampled it again, which samples "
                "only this shard."
            )

    def rollouts(self) -> list[Rollout]:
        """All rollouts, in the order in which they were sampled, with the n of a prompt adjacent."""
        return [rollout for rollouts, _ in self.shards() for rollout in rollouts]

    def shards(self) -> Iterator[tuple[list[Rollout], Path]]:
        """The rollouts of every complete shard, and the file with what was recorded of their tokens."""
        for records_file in sorted(self.folder.glob("shard-*.jsonl")):
            yield _read_records(records_file), records_file.with_suffix(".safetensors")

    @property
    def _sampled_prompts(self) -> int:
        """How many prompts a complete set has: those that were asked for without the overlong ones."""
        prompts: int = self.settings["prompts"]
        return prompts - self.settings.get("skipped_overlong", 0)

    def _write_settings(self, settings: dict[str, Any]) -> None:
        write_text(self.folder / "settings.json", json.dumps(settings, indent=2) + "\n")
        self.settings = settings

    def _records_file(self, index: int) -> Path:
        return self.folder / f"shard-{index:05d}.jsonl"

    def _arrays_file(self, index: int) -> Path:
        return self.folder / f"shard-{index:05d}.safetensors"


@contextmanager
def owning_rollouts(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of rollouts, without what killed processes left in it.

    Raises:
        ValueError: Another process is writing into it.
        OSError: The folder cannot be written.
    """
    with owning(folder):
        remove_leftovers(folder)
        yield


def _check_settings(settings: dict[str, Any]) -> None:
    """Check the settings that are counted with and compared.

    Raises:
        TypeError: One has another type.
    """
    sampling = settings.get("sampling", {})
    if not isinstance(sampling, dict):
        raise TypeError(f"sampling is {str(sampling)[:80]!r}")
    counts = {"prompts": (settings, 0), "skip": (settings, 0), "prompts_per_batch": (sampling, 1), "n": (sampling, 1)}
    for name, (values, least) in counts.items():
        if name in values and not is_whole_number(values[name], at_least=least):
            raise TypeError(f"{name} is {str(values[name])[:80]!r}")
    for name in ("task", "split"):
        if name in settings and not isinstance(settings[name], str):
            raise TypeError(f"{name} is {str(settings[name])[:80]!r}")
    labelled_by = settings.get("labelled_by")
    if not isinstance(labelled_by, dict | None):
        raise TypeError(f"labelled_by is {str(labelled_by)[:80]!r}")
    if "prompts_per_batch" in sampling and "n" not in sampling:
        raise KeyError("n")


def _write_records(file: Path, rollouts: list[Rollout]) -> None:
    write_text(file, "".join(json.dumps(dataclasses.asdict(rollout)) + "\n" for rollout in rollouts))


def _read_records(file: Path) -> list[Rollout]:
    try:
        return [Rollout(**json.loads(line)) for line in file.read_text().splitlines()]
    except (OverflowError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(
            f"{str(file)!r} does not hold one rollout per line ({error}): it is damaged, or was written by a later "
            "version. Delete it and run the command that sampled it again, which samples only this shard."
        ) from error


def _described(config: ElhsrConfig) -> dict[str, Any]:
    # Neither where a head was loaded from nor its decisions affect sampling: a run is resumed with a head that was
    # moved, or whose decisions were fitted again
    apart = (LOADED_FROM, *DECISIONS)
    return {name: value for name, value in config.to_dict().items() if name not in apart}
