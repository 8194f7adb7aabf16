# Made by hf_elhsr 0.1.0 from its hf_elhsr/head/configuration_elhsr.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""ElhsrConfig: what a reward head was made for - which model, which signal, which layers - and how to tell."""

import dataclasses
import inspect
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from .decisions_checks import check_decision
from .head_base_model import adapter_differences, adapter_fingerprint, adapters_in_force, fingerprint_differences, learns_prompts, model_fingerprint

logger = logging.get_logger(__name__)

#: What h_t can be made of.
SIGNALS = ("hidden_states", "logits", "top_log_probabilities")
# What transformers reads or writes in the configuration of any model, beside its fields
_COMMON = {field.name for field in dataclasses.fields(PreTrainedConfig)} | {
    "_commit_hash",
    "_name_or_path",
    "attn_implementation",
    "auto_map",
    "model_type",
    "name_or_path",
    "output_attentions",
    "torch_dtype",
}
# As many as the usual programming interfaces give
_TOP_LOG_PROBABILITIES = 20


class ElhsrConfig(PreTrainedConfig):
    """Configuration of an [`ElhsrRewardHead`]: the shape of the head and the language model it reads.

    Make one with [`ElhsrConfig.for_model`]; the arguments here are what `config.json` holds.

    Args:
        hidden_size: Width d of the language model's hidden states.
        layers: Which entries of `hidden_states` the head reads, ascending, 0 = embeddings where the model has them.
        gate: Whether tokens are weighted by a learned gate g_t; without it R is the plain mean of r_t.
        value: Whether a further row of weights estimates P(correct) of unfinished completions, see
            [`ElhsrRewardHead`]. Pruning is better with it.
        signal: What h_t is made of: "hidden_states" of the layers; "logits", of the raw distribution that token t was
            drawn from; or "top_log_probabilities", the highest of that distribution and the token's own.
        num_log_probabilities: k, how many of the highest, for "top_log_probabilities" alone.
        eps: Floor of the sum of gates, so that a completion whose gates all vanish has a finite reward.
        standardization: How features were standardised in training: "per_feature" or None. It is folded into the
            weights when the head is saved, so this is a record, not an operation.
        base_model: Id of the language model, e.g. "HuggingFaceTB/SmolLM2-135M-Instruct". Information only.
        base_model_revision: The revision of `base_model` used in training. Information only.
        base_model_type, base_num_hidden_layers, base_vocab_size: What the language model's own config says.
        fingerprint: Sampled weights of the language model, see [`model_fingerprint`].
        adapter: Sampled weights of the PEFT adapters that were in force on it, see [`adapter_fingerprint`]; None for
            the bare model.
        calibration: {"slope", "offset", "winner": {"slope", "offset"}, "n", "prompts"}: P(right) = sigmoid(slope R +
            offset) of any candidate, and of the best of n; fitted on so many held-out prompts.
        pruning: {"interval", "prefix", "final", "value", "prices", "n", "prompts"}: which running candidates are
            hopeless; `prices` is a table from regret (as text) to price. The numbers are explained in
            `decisions/pruning.py`.
        adaptive: {"wave", "thresholds", "prices", "n", "prompts"}: candidates per wave, and tables from regret (as
            text) to the P(right) of the best candidate so far at which a prompt is done, and to the price at which
            hopeless candidates of a wave are pruned; 0 prunes none.

    Raises:
        ValueError: `calibration`, `pruning` or `adaptive` are damaged, or an argument is unknown.
    """

    model_type = "elhsr"

    def __init__(
        self,
        hidden_size: int = 0,
        layers: list[int] | None = None,
        gate: bool = True,
        value: bool = False,
        signal: str = "hidden_states",
        num_log_probabilities: int | None = None,
        eps: float = 1e-8,
        standardization: str | None = None,
        base_model: str | None = None,
        base_model_revision: str | None = None,
        base_model_type: str | None = None,
        base_num_hidden_layers: int | None = None,
        base_vocab_size: int | None = None,
        fingerprint: dict[str, Any] | None = None,
        adapter: dict[str, Any] | None = None,
        calibration: dict[str, Any] | None = None,
        pruning: dict[str, Any] | None = None,
        adaptive: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        self.hidden_size = hidden_size
        self.layers = list(layers) if layers is not None else []
        self.gate = gate
        self.value = value
        self.signal = signal
        self.num_log_probabilities = num_log_probabilities
        self.eps = eps
        self.standardization = standardization
        self.base_model = base_model
        self.base_model_revision = base_model_revision
        self.base_model_type = base_model_type
        self.base_num_hidden_layers = base_num_hidden_layers
        self.base_vocab_size = base_vocab_size
        self.fingerprint = fingerprint
        self.adapter = adapter
        for name, given in (("calibration", calibration), ("pruning", pruning), ("adaptive", adaptive)):
            if given is not None:
                check_decision(name, given)
            setattr(self, name, given)
        if unknown := sorted(kwargs.keys() - _COMMON):
            raise ValueError(
                f"A reward head's configuration has no {', '.join(unknown)}: check the spelling, or update hf_elhsr if "
                "a later version made the head."
            )
        # A head has no attention, and transformers would download the code of a kernel that is named here
        kwargs.pop("attn_implementation", None)
        super().__init__(**kwargs)

    @property
    def num_features(self) -> int:
        """Length of h_t: L * d for hidden states, the vocabulary's size for logits, k + 1 for log-probabilities."""
        if self.signal == "logits":
            return self.base_vocab_size or 0
        if self.signal == "top_log_probabilities":
            return (self.num_log_probabilities or 0) + 1
        return len(self.layers) * self.hidden_size

    @classmethod
    def for_model(cls, model: PreTrainedModel, layers: list[int] | None = None, **kwargs: Any) -> "ElhsrConfig":
        """The configuration of a head for this language model: all layers, gate on, unless said otherwise.

        For hidden states one token is run through the model to see how many it returns and how wide they are.

        Args:
            model: A decoder-only language model of transformers; a PEFT or compiled wrapper is looked through.
            layers: Indices into `hidden_states`; negative ones count from the end. Default: all, or none for a signal
                that is not made of them.
            **kwargs: Any other argument of [`ElhsrConfig`].

        Raises:
            ValueError: An unknown signal, a layer that the model does not have, hidden states that are not (batch,
                tokens, width), layers for a signal that has none, or more log-probabilities than the vocabulary has
                tokens.
        """
        model = unwrap_language_model(model)
        text_config = model.config.get_text_config(decoder=True)
        signal = kwargs.get("signal", "hidden_states")
        if signal not in SIGNALS:
            raise ValueError(f"Unknown signal {signal!r}: this version reads {', '.join(SIGNALS)}.")
        if signal == "hidden_states":
            states = _probe_hidden_states(model)
            hidden_size, chosen = states[0].shape[-1], _chosen_layers(layers, len(states))
        else:
            if layers:
                raise ValueError(f"The signal {signal!r} has no layers: leave out layers={layers}.")
            hidden_size, chosen = getattr(text_config, "hidden_size", 0), []
        if signal == "top_log_probabilities":
            k = kwargs.setdefault("num_log_probabilities", _TOP_LOG_PROBABILITIES)
            if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= text_config.vocab_size:
                raise ValueError(
                    f"num_log_probabilities={k!r}: expected a number from 1 to the {text_config.vocab_size} tokens of "
                    "the vocabulary."
                )
        settings = {
            "hidden_size": hidden_size,
            "layers": chosen,
            "base_model": getattr(model.config, "_name_or_path", "") or None,
            "base_model_revision": getattr(model.config, "_commit_hash", None),
            "base_model_type": text_config.model_type,
            "base_num_hidden_layers": text_config.num_hidden_layers,
            "base_vocab_size": text_config.vocab_size,
            "fingerprint": model_fingerprint(model),
            "adapter": adapter_fingerprint(model),
        }
        return cls(**(settings | kwargs))

    def check_fits(self, model: PreTrainedModel) -> None:
        """Refuse a language model that this head was not made for.

        Architecture, width, depth and vocabulary must agree, and the model's weights must be those of the
        fingerprint within its tolerance. Paths and ids are never compared. What cannot be read (packed
        or offloaded weights) is not compared either, and a warning says so. A head made for the bare model may be used
        with an adapter on it, with one warning; a head made with an adapter needs this adapter in force.

        Raises:
            ValueError: The head does not fit; the message names both sides of every difference.
        """
        model = unwrap_language_model(model)
        text_config = model.config.get_text_config(decoder=True)
        found = {
            "model_type": (self.base_model_type, text_config.model_type),
            "hidden size": (self.hidden_size, getattr(text_config, "hidden_size", self.hidden_size)),
            "number of layers": (self.base_num_hidden_layers, text_config.num_hidden_layers),
            "vocabulary size": (self.base_vocab_size, text_config.vocab_size),
        }
        differences = [
            f"{what} {wanted} (head) against {given} (model)"
            for what, (wanted, given) in found.items()
            if wanted is not None and wanted != given
        ]
        if not differences and self.fingerprint is not None:
            differences = fingerprint_differences(self.fingerprint, model)
        if not differences and self.adapter is not None:
            differences = adapter_differences(self.adapter, model)
        if differences:
            raise ValueError(
                f"This reward head was made for {self.base_model or 'another model'} and does not fit "
                f"{getattr(model.config, '_name_or_path', '') or type(model).__name__}: {'; '.join(differences)}. "
                "Load the model that the head was made for, or train a head for this model."
            )
        if self.adapter is None and (adapters := adapters_in_force(model)):
            logger.warning_once(
                f"This reward head was made for {self.base_model or 'its language model'} without an adapter, and "
                f"{', '.join(map(repr, adapters))} changes the hidden states that it reads: its rewards may be worse. "
                "A head made with the adapter in force would know it."
            )


def unwrap_language_model(model: Any) -> PreTrainedModel:
    """The transformers model inside `torch.compile` and PEFT wrappers, or `model` itself."""
    model = getattr(model, "_orig_mod", model)
    if learns_prompts(model):
        raise ValueError(
            "This PEFT adapter learns prompts (prompt or prefix tuning), which stand before the model's inputs and not "
            "in the model, so that its tokens cannot be followed. Use an adapter of the weights, such as LoRA."
        )
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"Expected a language model of transformers (a PreTrainedModel), got {type(model).__name__}.")
    return model


def _chosen_layers(layers: list[int] | None, count: int) -> list[int]:
    """Ascending, distinct and non-negative: all of so many, or those named."""
    if layers is None:
        return list(range(count))
    if not layers or any(not -count <= layer < count for layer in layers):
        raise ValueError(
            f"layers={layers} cannot be read from this model: it returns {count} hidden states, so give indices from "
            f"0 to {count - 1} (or negative ones, counted from the end), at least one."
        )
    return sorted({layer % count for layer in layers})


def _probe_hidden_states(model: PreTrainedModel) -> tuple[torch.Tensor, ...]:
    # A model whose weights are all offloaded says that it is on "meta"
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
