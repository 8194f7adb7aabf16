"""PromptGroups: the rollouts of a set by prompt, with their features, for batches that never split a prompt."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils.logging import tqdm

from ..head.configuration_elhsr import ElhsrConfig
from ..rollouts import RolloutSet
from ..rollouts.rollout import by_prompt
from ..rollouts.shard_arrays import not_finite, read_features


@dataclass(frozen=True)
class Batch:
    """Rollouts one after the other, without padding.

    Args:
        features: (tokens, L * d) float32, in memory that a later batch will overwrite.
        rollout: (tokens,) long, which rollout of the batch a token belongs to.
        lengths: (rollouts,) long, how many recorded tokens each has.
        labels: (rollouts,) float32, 1 if the final answer is correct.
        prompts: (rollouts,) long, which prompt of the batch a rollout belongs to.
        files: The shard file that each rollout's features were read from.
    """

    features: torch.Tensor
    rollout: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor
    prompts: torch.Tensor
    files: list[Path]

    def check_finite(self) -> None:
        """Refuse features that hold NaN or infinity.

        Raises:
            ValueError: A feature is NaN or infinite; the message names the file.
        """
        for file, features in zip(self.files, self.features.split(self.lengths.tolist()), strict=True):
            if not bool(torch.isfinite(features).all()):
                raise not_finite(file)


@dataclass(frozen=True)
class _Group:
    file: Path
    first_row: int
    lengths: list[int]
    labels: list[bool]


class PromptGroups:
    """All prompts of a rollout set; features stay on disk, memory-mapped, until a batch reads them.

    Args:
        rollouts: A set with features.
        config: The config of the head that will read them; only its layers are read. Default: the rollouts' own.
        first: How many prompts to take, from the first. Default: all.

    Raises:
        ValueError: The head's layers were not recorded, or there are fewer prompts than asked for.
    """

    def __init__(self, rollouts: RolloutSet, config: ElhsrConfig | None = None, first: int | None = None):
        self._recorded = rollouts.config.num_features
        self._columns = (config or rollouts.config).columns_in(rollouts.config)
        self._width = sum(columns.stop - columns.start for columns in self._columns)
        self._rows: dict[Path, int] = {}
        #: Whether some tokens were left out for a disk budget
        self.subsampled = False
        self._groups: dict[str, _Group] = {}
        self._mapped: dict[Path, torch.Tensor] = {}
        # Allocated once: fresh memory for every batch costs more time in page faults than the arithmetic. Two buffers,
        # since one batch is read ahead of the one in use
        self._buffers = [torch.empty(0, 0), torch.empty(0, 0)]
        for shard, file in rollouts.shards():
            self._rows[file] = sum(rollout.num_rows for rollout in shard)
            self.subsampled |= any(rollout.feature_tokens is not None for rollout in shard)
            for members in by_prompt(shard):
                lengths = [rollout.num_rows for rollout in members]
                labels = [rollout.correct for rollout in members]
                self._groups[members[0].problem] = _Group(file, members[0].first_row, lengths, labels)
        if first is not None:
            if first > len(self._groups):
                raise ValueError(f"There are {len(self._groups)} prompts in {str(rollouts.folder)!r}, not {first}.")
            self._groups = dict(list(self._groups.items())[:first])

    @property
    def prompts(self) -> list[str]:
        """Ids of all prompts, in the order they were sampled."""
        return list(self._groups)

    def labels(self, prompts: list[str]) -> list[list[bool]]:
        """Labels of these prompts' rollouts."""
        return [self._groups[prompt].labels for prompt in prompts]

    def split(self, held_out: float, seed: int) -> tuple[list[str], list[str]]:
        """Prompts for training and prompts held out, at random.

        Raises:
            ValueError: Either part would be empty.
        """
        order = torch.randperm(len(self._groups), generator=torch.Generator().manual_seed(seed)).tolist()
        count = round(held_out * len(order))
        if not 0 < count < len(order):
            raise ValueError(
                f"held_out={held_out} of {len(order)} prompts leaves nothing to train on or to hold out: sample more "
                "prompts, or use a different share."
            )
        prompts = self.prompts
        return [prompts[i] for i in order[count:]], [prompts[i] for i in order[:count]]

    def batches(self, prompts: list[str], size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """The prompts `size` at a time, shuffled if there is a generator; the next is read while one is in use."""
        order = range(len(prompts)) if generator is None else torch.randperm(len(prompts), generator=generator).tolist()
        shuffled = [prompts[i] for i in order]
        parts = [
            [self._groups[prompt] for prompt in shuffled[start : start + size]] for start in range(0, len(order), size)
        ]
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = reader.submit(self._batch, parts[0], 0)
            for number in range(1, len(parts) + 1):
                batch = ahead.result()
                if number < len(parts):
                    ahead = reader.submit(self._batch, parts[number], number % 2)
                yield batch

    def _batch(self, groups: list[_Group], buffer: int) -> Batch:
        lengths = torch.tensor([length for group in groups for length in group.lengths])
        return Batch(
            features=self._read(groups, int(lengths.sum()), buffer),
            rollout=torch.arange(len(lengths)).repeat_interleave(lengths),
            lengths=lengths,
            labels=torch.tensor([float(label) for group in groups for label in group.labels]),
            prompts=torch.tensor([number for number, group in enumerate(groups) for _ in group.labels]),
            files=[group.file for group in groups for _ in group.labels],
        )

    def _read(self, groups: list[_Group], tokens: int, buffer: int) -> torch.Tensor:
        if len(self._buffers[buffer]) < tokens:
            self._buffers[buffer] = torch.empty(tokens, self._width)
        first = 0
        for group in groups:
            part = self._features(group)
            rows = self._buffers[buffer][first : first + len(part)]
            first, column = first + len(part), 0
            for columns in self._columns:
                width = columns.stop - columns.start
                rows[:, column : column + width].copy_(part[:, columns])
                column += width
        return self._buffers[buffer][:tokens]

    def _features(self, group: _Group) -> torch.Tensor:
        if group.file not in self._mapped:
            self._mapped[group.file] = self._checked(read_features(group.file), group.file)
        return self._mapped[group.file][group.first_row : group.first_row + sum(group.lengths)]

    def _checked(self, features: torch.Tensor, file: Path) -> torch.Tensor:
        expected = (self._rows[file], self._recorded)
        if features.shape != expected:
            raise ValueError(
                f"Expected features of shape {expected} in {str(file)!r}, got {tuple(features.shape)}: the file does "
                "not belong to the .jsonl of the same name. Delete both, and run the command that sampled them again."
            )
        return features


def feature_statistics(
    groups: PromptGroups, prompts: list[str], prompts_per_batch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of every feature over the tokens of these prompts: two (L * d,) float32.

    The deviation of a feature that never varies is infinite, so that it has no effect.

    Raises:
        ValueError: A feature is NaN or infinite; the message names the file.
    """
    count = 0
    mean, squares = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for batch in tqdm(
        groups.batches(prompts, prompts_per_batch),
        desc="Standardising features",
        total=-(-len(prompts) // prompts_per_batch),
        unit="batch",
    ):
        # Merged batch by batch (Chan et al.): a plain sum of squares is inexact if a mean is far above its deviation
        variance, batch_mean = torch.var_mean(batch.features, dim=0, correction=0)
        # The sum is NaN or infinite if any number is, and is faster to check
        if not bool(torch.isfinite(variance.sum() + batch_mean.sum())):
            batch.check_finite()
        new = len(batch.features)
        difference = batch_mean.double() - mean
        squares = squares + variance.double() * new + difference.square() * (count * new / (count + new))
        mean = mean + difference * (new / (count + new))
        count += new
    # A feature that never varies has no information, and must not be scaled up
    std = (squares / count).sqrt()
    return mean.float(), torch.where(std > 1e-6 * mean.abs() + 1e-12, std, torch.inf).float()
