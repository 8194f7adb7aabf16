"""What h_t is, where it is not made of hidden states: the distribution that token t was drawn from."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers.utils import ModelOutput

from .configuration_elhsr import ElhsrConfig

#: Log-probabilities below it count as it: what is as good as impossible has many names, -9999 among them.
LOG_PROBABILITY_FLOOR = -50.0


def distribution_features(
    signal: str, logits: torch.Tensor, token_ids: torch.Tensor, num_log_probabilities: int | None
) -> torch.Tensor:
    """h_t of sampled tokens for the signals "logits" and "top_log_probabilities".

    Args:
        logits: (..., vocabulary), raw: of the distribution that each token was drawn from, before any processor.
        token_ids: (...) long, the tokens drawn.
        num_log_probabilities: k, for "top_log_probabilities".

    Returns:
        (..., vocabulary), the logits themselves; or (..., k + 1) float32, see [`top_log_probabilities`].

    Raises:
        ValueError: Another signal.
    """
    if signal == "logits":
        return logits
    if signal == "top_log_probabilities" and num_log_probabilities is not None:
        return top_log_probabilities(logits, token_ids, num_log_probabilities)
    raise ValueError(f"The signal {signal!r} is not made of a distribution.")


def top_log_probabilities(logits: torch.Tensor, token_ids: torch.Tensor, k: int) -> torch.Tensor:
    """The k highest log-probabilities in nats, highest first, and then that of the token drawn, none below the floor.

    Args:
        logits: (..., vocabulary).
        token_ids: (...) long.

    Returns:
        (..., k + 1) float32.
    """
    logits = logits.float()
    normalizer = logits.logsumexp(dim=-1, keepdim=True)
    drawn = logits.gather(-1, token_ids.to(logits.device)[..., None])
    chosen = torch.cat([logits.topk(k, dim=-1).values, drawn], dim=-1)
    return (chosen - normalizer).clamp_min(LOG_PROBABILITY_FLOOR)


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


def head_needs(config: ElhsrConfig) -> SignalNeeds:
    """What must be shown of every token to a head of this configuration."""
    if config.signal == "hidden_states":
        return SignalNeeds(layers=frozenset(config.layers))
    return SignalNeeds(logits=True)


def head_features(
    config: ElhsrConfig, input_ids: torch.Tensor, signal: StepSignal, device: torch.device | str | None = None
) -> torch.Tensor:
    """h_t of every row's last token: (rows, `config.num_features`).

    Raises:
        ValueError: The step does not show what [`head_needs`] names.
    """
    return torch.cat(head_parts(config, input_ids, signal, device), dim=-1)


def head_parts(
    config: ElhsrConfig, input_ids: torch.Tensor, signal: StepSignal, device: torch.device | str | None = None
) -> list[torch.Tensor]:
    """What [`head_features`] puts side by side: (rows, d) of every layer, or h_t itself where it has no layers."""
    if config.signal == "hidden_states":
        return signal.states(config.layers, device)
    if signal.logits is None:
        raise ValueError("This step has no logits: name them in the processor's `needs`.")
    features = distribution_features(config.signal, signal.logits, input_ids[:, -1], config.num_log_probabilities)
    return [features if device is None else features.to(device)]
