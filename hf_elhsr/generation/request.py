"""CandidateRequest: what the decoding loop is asked for, and who decides about candidates under way."""

from dataclasses import dataclass
from typing import Protocol

import torch

from ..rewards import SignalProcessorList


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

    def check_rows_may_stay(self, compiled: bool) -> None:
        """Refuse what needs rows to leave, where they cannot."""
        given = {"max_parallel": self.max_parallel, "adaptive": self.waves, "prune": self.pruners or None}
        names = " and ".join(name for name, value in given.items() if value is not None)
        if names:
            reason = (
                "a compiled step needs a batch that keeps its size: pass another cache_implementation, or "
                "disable_compile=True"
                if compiled
                else "logits processors or stopping criteria that may keep state per row need all rows to stay"
            )
            raise ValueError(f"{names} cannot be used here: {reason}.")

    def check_time_may_end(self) -> None:
        """Refuse max_time where candidates start after one another: the late ones would end at their first tokens."""
        given = {"max_parallel": self.max_parallel, "adaptive": self.waves}
        names = " and ".join(name for name, value in given.items() if value is not None)
        if names:
            raise ValueError(
                f"{names} cannot be used with max_time, which would cut the candidates that start last at their first "
                f"tokens: leave out one of them."
            )
