"""RolloutSet: rollouts with labels, and features or rewards, in a folder, shard by shard.

    settings.json               what was sampled, from which model and how, and the configuration of the head: the one
                                to be trained on the features, or the one that scored the rollouts
    shard-00000.jsonl           one rollout a line
    shard-00000.safetensors     `features` (tokens, L * d) of the shard's rollouts, one after the other, if recorded

A shard is complete when its .jsonl is there: it is written last, beside its place and then renamed. So a killed run
leaves whole shards, and sampling goes on with the first one missing.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..configuration_elhsr import ElhsrConfig


@dataclass(frozen=True)
class Rollout:
    """One completion of a task's problem, with its label.

    Args:
        problem: Id of the problem; rollouts of a prompt share it.
        template: The problem's family.
        token_ids: The sampled tokens, the EOS included.
        text: The completion, special tokens left out.
        answer: The final answer the task's verifier found, or None.
        label: Whether that answer is right.
        mean_log_probability: Per token, under the raw distribution, in nats.
        first_row: Where its features start in the shard, if they were recorded; there are len(token_ids) of them.
        reward: R by the head that followed the sampling, if one did.
    """

    problem: str
    template: str
    token_ids: list[int]
    text: str
    answer: str | None
    label: bool
    mean_log_probability: float
    first_row: int
    reward: float | None = None


class RolloutSet:
    """The rollouts in a folder; see the module's docstring for the files.

    Args:
        folder: Where they are.

    Raises:
        ValueError: No rollout set is there.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        settings_file = self.folder / "settings.json"
        if not settings_file.is_file():
            raise ValueError(f"{str(folder)!r} holds no rollouts (no settings.json): make some with `hf-elhsr sample`.")
        self.settings: dict[str, Any] = json.loads(settings_file.read_text())
        self.config = ElhsrConfig.from_dict(self.settings["head_config"])

    @classmethod
    def create(cls, folder: str | os.PathLike[str], settings: dict[str, Any], config: ElhsrConfig) -> "RolloutSet":
        """A new set, or the one that is there already if it was made with the same settings.

        Raises:
            ValueError: The folder holds rollouts made with other settings.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        wanted = json.loads(json.dumps({**settings, "head_config": config.to_dict()}))
        if (folder / "settings.json").is_file():
            present = cls(folder)
            different = sorted(
                name
                for name in wanted.keys() | present.settings.keys()
                if wanted.get(name) != present.settings.get(name)
            )
            if different:
                raise ValueError(
                    f"{str(folder)!r} holds rollouts made with other settings ({', '.join(different)} differ): choose "
                    "another folder, or the same settings to go on with it."
                )
            return present
        write_text(folder / "settings.json", json.dumps(wanted, indent=2) + "\n")
        return cls(folder)

    def has_shard(self, index: int) -> bool:
        """Whether the shard is there, whole."""
        return self._records_file(index).is_file()

    def write_shard(self, index: int, rollouts: list[Rollout], features: torch.Tensor | None) -> None:
        """Write a shard whole or not at all."""
        if features is not None:
            expected = sum(len(rollout.token_ids) for rollout in rollouts)
            if len(features) != expected:
                raise ValueError(f"Shard {index} has {expected} sampled tokens but {len(features)} rows of features.")
            partial = self._features_file(index).with_suffix(".partial")
            save_file({"features": features.contiguous()}, partial)
            os.replace(partial, self._features_file(index))
        lines = (json.dumps(dataclasses.asdict(rollout)) + "\n" for rollout in rollouts)
        write_text(self._records_file(index), "".join(lines))

    def check_complete(self) -> None:
        """Refuse a set whose sampling was stopped, or that has a prompt twice.

        Raises:
            ValueError: Prompts are missing or double.
        """
        seen: set[str] = set()
        for shard, file in self.shards():
            problems = {rollout.problem for rollout in shard}
            if problems & seen:
                raise ValueError(f"{str(file.with_suffix('.jsonl'))!r} has prompts that are in another shard, too.")
            seen |= problems
        wanted = self.settings["prompts"]
        if len(seen) != wanted:
            raise ValueError(
                f"{str(self.folder)!r} has rollouts of {len(seen)} of {wanted} prompts: give the command that samples "
                "them again, and it goes on where it stopped."
            )

    def rollouts(self) -> list[Rollout]:
        """All rollouts, in the order they were sampled: the n of a prompt stand together."""
        return [rollout for rollouts, _ in self.shards() for rollout in rollouts]

    def shards(self) -> Iterator[tuple[list[Rollout], Path]]:
        """The rollouts of every complete shard, and the file with their features."""
        for records_file in sorted(self.folder.glob("shard-*.jsonl")):
            rollouts = [Rollout(**json.loads(line)) for line in records_file.read_text().splitlines()]
            yield rollouts, records_file.with_suffix(".safetensors")

    def _records_file(self, index: int) -> Path:
        return self.folder / f"shard-{index:05d}.jsonl"

    def _features_file(self, index: int) -> Path:
        return self.folder / f"shard-{index:05d}.safetensors"


def read_features(file: Path) -> torch.Tensor:
    """The features of a shard, (tokens, L * d), mapped into memory and read when touched.

    Raises:
        ValueError: They were not recorded.
    """
    if not file.is_file():
        raise ValueError(f"{str(file)!r} is missing: these rollouts were sampled without features.")
    with safe_open(file, framework="pt") as opened:
        features: torch.Tensor = opened.get_tensor("features")
    return features


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text)
    os.replace(partial, file)
