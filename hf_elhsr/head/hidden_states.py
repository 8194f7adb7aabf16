"""The signal "hidden_states": the hidden states of chosen layers, concatenated."""

import inspect
from typing import Any

import torch
from transformers import PreTrainedModel

from .._checks import is_whole_number, quoted
from .signals import SignalNeeds, SignalReader, StepSignal


class HiddenStates(SignalReader):
    """The hidden states of `config.layers`, concatenated in ascending order."""

    name = "hidden_states"
    source = "hidden states"
    has_layers = True

    @classmethod
    def settings_for(cls, model: PreTrainedModel, layers: list[int] | None, given: dict[str, Any]) -> dict[str, Any]:
        states = _probe_hidden_states(model)
        return {"hidden_size": states[0].shape[-1], "layers": _chosen_layers(layers, len(states))}

    def check(self) -> None:
        hidden_size, layers = self.config.hidden_size, self.config.layers
        whole = is_whole_number(hidden_size, at_least=1) and all(is_whole_number(layer, at_least=0) for layer in layers)
        if not whole or not layers or layers != sorted(set(layers)):
            raise ValueError(
                f"hidden_size={quoted(hidden_size)} and layers={quoted(layers)} do not describe a reward head: pass a "
                "positive width and ascending, distinct, non-negative layers. ElhsrConfig.for_model(model) fills them "
                "in."
            )

    @property
    def num_features(self) -> int:
        return len(self.config.layers) * self.config.hidden_size

    @property
    def needs(self) -> SignalNeeds:
        return SignalNeeds(layers=frozenset(self.config.layers))

    @property
    def description(self) -> str:
        return f"{len(self.config.layers)} hidden states (width {self.config.hidden_size})"

    @property
    def detail(self) -> str:
        return f"hidden states {self.config.layers} of width {self.config.hidden_size}"

    def parts(
        self, input_ids: torch.Tensor, step: StepSignal, device: torch.device | str | None = None
    ) -> list[torch.Tensor]:
        return step.states(self.config.layers, device)

    def reread(
        self, model: PreTrainedModel, inputs: dict[str, Any], completion_mask: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        layers = list(self.config.layers)
        outputs: Any = model(**inputs, output_hidden_states=layers, return_dict=True)
        return [outputs.hidden_states[layer] for layer in layers], completion_mask

    def recorded_dtype(self, model: Any) -> torch.dtype:
        dtype: torch.dtype = model.dtype
        return dtype

    def columns_in(self, recorded: SignalReader) -> list[slice]:
        there, own, width = recorded.config.layers, self.config.layers, self.config.hidden_size
        same = type(recorded) is type(self) and recorded.config.hidden_size == width
        if not same or not set(own) <= set(there):
            raise self._not_in(recorded)
        if own == there:
            return [slice(0, recorded.num_features)]
        columns: list[slice] = []
        for layer in own:
            start = there.index(layer) * width
            if columns and columns[-1].stop == start:
                columns[-1] = slice(columns[-1].start, start + width)
            else:
                columns.append(slice(start, start + width))
        return columns


def _chosen_layers(layers: list[int] | None, count: int) -> list[int]:
    """Ascending, distinct and non-negative: all of `count`, or those named."""
    if layers is None:
        return list(range(count))
    if not layers or any(not -count <= layer < count for layer in layers):
        raise ValueError(
            f"layers={quoted(layers)} cannot be read from this model: it returns {count} hidden states, so pass at "
            f"least one index from 0 to {count - 1} (or negative ones, counted from the end)."
        )
    return sorted({layer % count for layer in layers})


def _probe_hidden_states(model: PreTrainedModel) -> tuple[torch.Tensor, ...]:
    # The device of a model whose weights are all offloaded is "meta"
    device = "cpu" if model.device.type == "meta" else model.device
    inputs: dict[str, Any] = {"input_ids": torch.zeros(1, 1, dtype=torch.long, device=device)}
    if "use_cache" in inspect.signature(model.forward).parameters:
        inputs["use_cache"] = False
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True, return_dict=True).get("hidden_states")
    if not states or any(state.ndim != 3 or state.shape[-1] != states[0].shape[-1] for state in states):
        shapes = [tuple(state.shape) for state in states] if states else None
        raise ValueError(
            f"{type(model).__name__} does not return hidden states of one width, shaped (batch, tokens, width), that "
            f"a reward head can read: got {shapes}."
        )
    return states
