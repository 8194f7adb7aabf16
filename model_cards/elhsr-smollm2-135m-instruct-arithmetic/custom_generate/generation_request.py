# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/request.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""CandidateRequest: what the decoding loop is asked for, and who decides about candidates under way."""

from dataclasses import dataclass
from typing import Protocol

import torch

from .rewards_processor import SignalProcessorList


class Pruner(Protocol):
    """Says which candidates are hopeless."""

    def __call__(
        self, candidates: torch.Tensor, unfinished: torch.Tensor, lengths: torch.Tensor, pruned: torch.Tensor
    ) -> torch.Tensor:
        """(rows,) bool, true for rows to stop, all of them unfinished.

        Args:
            candidates: (rows,) long, which candidate a row is.
            unfinished: (rows,) bool, false for rows that have ended.
            lengths, pruned: (all candidates,) long and bool: sampled tokens so far, and who was stopped already.
        """


class Waves(Protocol):
    """Says how many candidates start together, and which prompts want more of them."""

    def wave_sizes(self) -> list[int]:
        """How many candidates of a prompt each wave has; n together."""

    def wanting(self, lengths: torch.Tensor, pruned: torch.Tensor) -> torch.Tensor:
        """(batch,) bool, true for prompts that want another wave; the arguments are those of [`Pruner`]."""


@dataclass(frozen=True)
class CandidateRequest:
    """What the mixin asks the loop for: n candidates per prompt, seen by these processors.

    Args:
        max_parallel: At most so many candidates in the batch at a time.
        pruners: Asked after every step which candidates to stop.
        waves: Without it, all n candidates of a prompt start together.
    """

    n: int
    processors: SignalProcessorList
    max_parallel: int | None = None
    pruners: tuple[Pruner, ...] = ()
    waves: Waves | None = None

    def check_rows_may_leave(self, compiled: bool, stateful: list[str]) -> None:
        """Refuse what needs rows to leave the batch, where they cannot.

        Args:
            compiled: The decoding step is compiled, for a batch that keeps its size.
            stateful: Names of logits processors and stopping criteria that may keep state per row.
        """
        names = self._asked("prune", "adaptive", "max_parallel")
        if names and stateful:
            raise ValueError(
                f"{names} needs rows that can leave the batch, and {', '.join(stateful)} may keep state per row: leave "
                "out one of them."
            )
        if names and compiled:
            raise ValueError(
                f"{names} needs rows that can leave the batch, and decoding is compiled for a batch that keeps its "
                "size: choose another cache_implementation, or set disable_compile=True."
            )

    def check_time(self) -> None:
        """Refuse max_time where candidates start after one another: the late ones would end at their first tokens."""
        if names := self._asked("adaptive", "max_parallel"):
            raise ValueError(
                f"{names} lets candidates start after one another, and max_time would cut the last of them at their "
                "first tokens: leave out one of them."
            )

    def _asked(self, *names: str) -> str:
        given = {"prune": self.pruners, "adaptive": self.waves, "max_parallel": self.max_parallel}
        return " and ".join(name for name in names if given[name])
