# Made by hf_elhsr 0.1.0 from its hf_elhsr/signals/step_signal.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""The signal of one decoding step: what the language model showed of the token just sampled, for every row."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers.utils import ModelOutput


@dataclass(frozen=True)
class SignalNeeds:
    """What a signal processor must be shown, so that the decoding loop computes nothing else.

    Args:
        layers: Entries of `hidden_states` that are read; with none, the last sampled token is not fed back.
        logits: Whether the raw next-token logits are read.
    """

    layers: frozenset[int] = frozenset()
    logits: bool = False

    @classmethod
    def union(cls, needs: Iterable["SignalNeeds"]) -> "SignalNeeds":
        """What several processors need together."""
        needs = list(needs)
        return cls(frozenset().union(*(need.layers for need in needs)), any(need.logits for need in needs))


@dataclass(frozen=True)
class StepSignal:
    """What is known of the last token of every row, `input_ids[:, -1]`.

    Args:
        candidates: (rows,) long. Which candidate a row belongs to; rows may leave, candidates keep their number.
        active: (rows,) bool. False where the row has ended and its last token is padding: nothing to score.
        hidden_states: Entry l is (rows, d) at that token, or None where nobody needs it; None without layers.
        logits: (rows, vocabulary) float32, raw: the distribution that the token was drawn from before any processor
            changed it. None where nobody needs it.
    """

    candidates: torch.Tensor
    active: torch.Tensor
    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    logits: torch.Tensor | None = None

    @cached_property
    def log_normalizer(self) -> torch.Tensor:
        """(rows,) float32: log sum_j exp(logit_j), computed once for all processors that ask.

        Raises:
            ValueError: Nobody's `needs` name the logits.
        """
        if self.logits is None:
            raise ValueError("This step has no logits: name them in the processor's `needs`.")
        return self.logits.logsumexp(dim=-1)

    def features(self, layers: Iterable[int], device: torch.device | str | None = None) -> torch.Tensor:
        """h_t of the given layers side by side: (rows, L * d), in the language model's dtype."""
        return torch.cat(self.states(layers, device), dim=-1)

    def states(self, layers: Iterable[int], device: torch.device | str | None = None) -> list[torch.Tensor]:
        """The hidden states of the given layers: (rows, d) each, in the language model's dtype."""
        if self.hidden_states is None:
            raise ValueError("This step has no hidden states: name the layers in the processor's `needs`.")
        states = []
        for layer in layers:
            state = self.hidden_states[layer] if layer < len(self.hidden_states) else None
            if state is None:
                raise ValueError(f"This step has no hidden state {layer}: name it in the processor's `needs`.")
            states.append(state if device is None or state.device == device else state.to(device))
        return states


def read_step(
    outputs: ModelOutput | None,
    drawn_from: torch.Tensor | None,
    candidates: torch.Tensor,
    active: torch.Tensor,
    needs: SignalNeeds,
) -> StepSignal:
    """The signal of the tokens that were drawn from `drawn_from` and then fed to the model, which gave `outputs`."""
    hidden_states: Any = None
    if needs.layers:
        returned = outputs.get("hidden_states") if outputs is not None else None
        if not returned or max(needs.layers) >= len(returned):
            raise ValueError(
                f"Layers {sorted(needs.layers)} were asked for, but the model returned "
                f"{len(returned) if returned else 'no'} hidden states in decoding."
            )
        unselected = [layer for layer in sorted(needs.layers) if returned[layer] is None]
        if unselected:
            raise ValueError(f"Layers {unselected} were asked for, but output_hidden_states selects others: pass True.")
        hidden_states = tuple(_last(state) if layer in needs.layers else None for layer, state in enumerate(returned))
    return StepSignal(candidates, active, hidden_states, drawn_from if needs.logits else None)


def _last(state: torch.Tensor) -> torch.Tensor:
    """(rows, d): the last position of (rows, positions, d)."""
    if state.shape[1] == 1:
        return state.squeeze(1)
    # Without a cache the model is fed the whole row each time. Not a view, which would keep it all from being freed
    return state[:, -1].clone()
