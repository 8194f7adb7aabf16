"""Signals: the values that a decoding step provides for the token just sampled, and how a head reads them.

[`SignalReader`] has one subclass for each value of `config.signal`, in `hidden_states.py` and `distributions.py`;
`SIGNALS` in `configuration_elhsr.py` names them. A reader knows everything that depends on the kind of signal: its
width, its needs, h_t while decoding and in re-scoring, how it is recorded and described.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel
from transformers.utils import ModelOutput


@dataclass(frozen=True)
class SignalNeeds:
    """The values that a signal processor reads; the decoding loop provides no others.

    Args:
        layers: Entries of `hidden_states` that are read; without any, the last sampled token is not fed back.
        logits: Whether the raw next-token logits are read.
    """

    layers: frozenset[int] = frozenset()
    logits: bool = False

    @classmethod
    def union(cls, needs: Iterable["SignalNeeds"]) -> "SignalNeeds":
        """The needs of several processors together."""
        needs = list(needs)
        return cls(frozenset().union(*(need.layers for need in needs)), any(need.logits for need in needs))


@dataclass(frozen=True)
class StepSignal:
    """The values for the last token of every row, `input_ids[:, -1]`.

    Args:
        candidates: (rows,) long. The candidate that a row belongs to; rows may leave, candidates keep their number.
        active: (rows,) bool. False where the row has ended and its last token is padding, which is not scored.
        hidden_states: Entry l is (rows, d) at that token, or None if no processor needs it; None without layers.
        logits: (rows, vocabulary) float32, raw: the distribution that the token was sampled from, before any processor
            changed it. None if no processor needs it.
    """

    candidates: torch.Tensor
    active: torch.Tensor
    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    logits: torch.Tensor | None = None

    @property
    def raw_logits(self) -> torch.Tensor:
        """The logits, for a processor that needs them.

        Raises:
            ValueError: No processor's `needs` name the logits.
        """
        if self.logits is None:
            raise ValueError("This step has no logits: name them in the processor's `needs`.")
        return self.logits

    @cached_property
    def log_normalizer(self) -> torch.Tensor:
        """(rows,) float32: log sum_j exp(logit_j), computed once for all processors.

        Raises:
            ValueError: No processor's `needs` name the logits.
        """
        return self.raw_logits.logsumexp(dim=-1)

    def features(self, layers: Iterable[int], device: torch.device | str | None = None) -> torch.Tensor:
        """h_t of the given layers, concatenated: (rows, L * d), in the language model's dtype."""
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
    """The signal of tokens that were sampled from `drawn_from` and then fed to the model, which returned `outputs`."""
    hidden_states: Any = None
    if needs.layers:
        returned = outputs.get("hidden_states") if outputs is not None else None
        if not returned or max(needs.layers) >= len(returned):
            raise ValueError(
                f"Layers {sorted(needs.layers)} were requested, but the model returned "
                f"{len(returned) if returned else 'no'} hidden states in decoding."
            )
        unselected = [layer for layer in sorted(needs.layers) if returned[layer] is None]
        if unselected:
            raise ValueError(f"Layers {unselected} were requested, but output_hidden_states selects others: pass True.")
        hidden_states = tuple(_last(state) if layer in needs.layers else None for layer, state in enumerate(returned))
    return StepSignal(candidates, active, hidden_states, drawn_from if needs.logits else None)


def _last(state: torch.Tensor) -> torch.Tensor:
    """(rows, d): the last position of (rows, positions, d)."""
    if state.shape[1] == 1:
        return state.squeeze(1)
    # Without a cache the model is fed the whole row each time. A view would keep all of its states in memory
    return state[:, -1].clone()


class SignalReader(ABC):
    """Reads the signal of a head with one configuration.

    Attributes:
        name: The value of `config.signal`.
        source: The origin of the signal, in words.
        has_layers: Whether h_t consists of layers, so that a reward can be split into their shares.
        training_defaults: The `RewardHeadTrainingArguments` that are different for heads that read it.
        depends_on_vocabulary: Whether h_t changes with the number of tokens in the vocabulary, padding included.

    Args:
        config: The head's [`ElhsrConfig`].
    """

    name: ClassVar[str]
    source: ClassVar[str]
    has_layers: ClassVar[bool] = False
    depends_on_vocabulary: ClassVar[bool] = False
    training_defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any):
        self.config = config

    @classmethod
    @abstractmethod
    def settings_for(cls, model: PreTrainedModel, layers: list[int] | None, given: dict[str, Any]) -> dict[str, Any]:
        """The fields of a configuration that depend on the signal, for a head that reads this language model.

        Args:
            layers: The argument of `ElhsrConfig.for_model`.
            given: Its other arguments.

        Raises:
            ValueError: The model does not have this signal, or an argument does not fit it.
        """

    @abstractmethod
    def check(self) -> None:
        """Refuse a configuration in which h_t has no length.

        Raises:
            ValueError: A field that the signal depends on is missing or out of range.
        """

    @property
    @abstractmethod
    def num_features(self) -> int:
        """Length of h_t."""

    @property
    @abstractmethod
    def needs(self) -> SignalNeeds:
        """The values that are read at every token."""

    @property
    @abstractmethod
    def description(self) -> str:
        """The features in words, such as "31 hidden states (width 576)"."""

    @property
    def detail(self) -> str:
        """The features in words, with every number in which two heads can differ."""
        return self.description

    @abstractmethod
    def parts(
        self, input_ids: torch.Tensor, step: StepSignal, device: torch.device | str | None = None
    ) -> list[torch.Tensor]:
        """h_t of every row's last token, in parts of equal width, (rows, width) each, to be concatenated.

        Raises:
            ValueError: The step lacks a value that [`needs`] names.
        """

    def features(
        self, input_ids: torch.Tensor, step: StepSignal, device: torch.device | str | None = None
    ) -> torch.Tensor:
        """h_t of every row's last token: (rows, `num_features`)."""
        return torch.cat(self.parts(input_ids, step, device), dim=-1)

    @abstractmethod
    def reread(
        self, model: PreTrainedModel, inputs: dict[str, Any], completion_mask: torch.Tensor
    ) -> tuple[torch.Tensor | list[torch.Tensor], torch.Tensor]:
        """h_t of whole sequences, by one forward pass, and the positions of sampled tokens.

        Args:
            inputs: Inputs of the model's forward pass.
            completion_mask: (batch, length), 1 at the sampled tokens.

        Returns:
            The arguments of `ElhsrRewardHead.forward`.
        """

    def recorded_dtype(self, model: Any) -> torch.dtype:
        """The dtype that records features of this model without rounding."""
        return torch.float32

    def columns_in(self, recorded: "SignalReader") -> list[slice]:
        """The columns of recorded features that make up h_t, as few slices as possible, in order.

        Args:
            recorded: The reader that the features were recorded for.

        Raises:
            ValueError: The features have a different signal or width, or lack a part of h_t.
        """
        if type(recorded) is not type(self) or recorded.num_features != self.num_features:
            raise self._not_in(recorded)
        return [slice(0, recorded.num_features)]

    def _not_in(self, recorded: "SignalReader") -> ValueError:
        return ValueError(
            f"A head that reads {self.detail} cannot be applied to recorded features of {recorded.detail}: choose "
            "among the recorded layers, or sample again."
        )

    def check_shown_by_interfaces(self) -> None:
        """Refuse a head that cannot read the answers of an OpenAI-compatible interface.

        Raises:
            ValueError: An interface does not return this signal.
        """
        raise ValueError(
            f"This head reads {self.name!r}, and an interface returns only log-probabilities: train a head with "
            "`hf-elhsr sample --signal top_log_probabilities`."
        )
