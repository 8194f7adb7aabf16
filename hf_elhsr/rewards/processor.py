"""SignalProcessor: the counterpart of a LogitsProcessor that reads hidden states or logits of each sampled token."""

from abc import ABC, abstractmethod

import torch

from ..head.signals import SignalNeeds, StepSignal


class SignalProcessor(ABC):
    """Called once for every sampled token, after the token has been fed to the model.

    State is kept per candidate, not per row: `signal.candidates` says which candidate each row belongs to. So nothing
    is lost or copied when rows leave the batch, and the results of all candidates are in place at the end. A processor
    has to define `needs`, `begin` and `__call__`; the two notices are optional.
    """

    #: What the processor reads; the decoding loop asks the model for nothing else.
    needs: SignalNeeds = SignalNeeds()

    @abstractmethod
    def begin(self, num_candidates: int, device: torch.device) -> None:
        """Reset the state, for this many candidates. Called once per decoding call, before the first token."""

    @abstractmethod
    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        """Take in one token per row.

        Args:
            input_ids: (rows, length), the prompt and everything sampled so far, the token in question last.
            signal: What the model computed for that token. Rows with `signal.active` false must be skipped. Other
                processors read the same tensors, now or some steps later: copy what you want to change.
        """

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        """Notice: candidate i continues as a copy of former candidate index[i]. Override it to copy the state."""

    def candidates_left(self, candidates: torch.Tensor) -> None:
        """Notice: these candidates are complete and get no more calls."""


class SignalProcessorList(list[SignalProcessor]):
    """Several processors that see the same steps, as a LogitsProcessorList holds several LogitsProcessors."""

    @property
    def needs(self) -> SignalNeeds:
        return SignalNeeds.union(processor.needs for processor in self)

    def begin(self, num_candidates: int, device: torch.device) -> None:
        for processor in self:
            processor.begin(num_candidates, device)

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        for processor in self:
            processor(input_ids, signal)

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        for processor in self:
            processor.candidates_multiplied(index)

    def candidates_left(self, candidates: torch.Tensor) -> None:
        for processor in self:
            processor.candidates_left(candidates)


_CHUNK = 64


class TokenStore:
    """Numbers of every token of every candidate; it grows with the longest completion, whenever candidates start.

    Args:
        names: What is kept, one float32 number each per token.
    """

    def __init__(self, *names: str):
        self._names = names

    def begin(self, num_candidates: int, device: torch.device) -> None:
        """Discard all tokens."""
        self._values = torch.zeros(len(self._names), num_candidates, 0, device=device, dtype=torch.float32)
        self._lengths = torch.zeros(num_candidates, device=device, dtype=torch.long)

    def add(self, candidates: torch.Tensor, active: torch.Tensor, *values: torch.Tensor) -> None:
        """Store one token of each active row.

        Args:
            candidates: (rows,) long, all different.
            active: (rows,) bool.
            *values: (rows,) for each name.
        """
        candidates = candidates[active]
        places = self._lengths[candidates]
        if len(places) and int(places.max()) >= self._values.shape[2]:
            self._values = torch.nn.functional.pad(self._values, (0, _CHUNK))
        self._values[:, candidates, places] = torch.stack(values)[:, active]
        self._lengths[candidates] += 1

    def multiply(self, index: torch.Tensor) -> None:
        """Let candidate i continue as a copy of former candidate index[i]."""
        self._values, self._lengths = self._values[:, index], self._lengths[index]

    def __getitem__(self, name: str) -> torch.Tensor:
        """(candidates, tokens) float32, zero past a candidate's end."""
        longest = int(self._lengths.max()) if len(self._lengths) else 0
        return self._values[self._names.index(name), :, :longest]
