"""ElhsrConfig: what a reward head was made for - which model, which signal, which layers - and how to tell."""

import inspect
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from .configuration_decisions import check_decision

logger = logging.get_logger(__name__)

# In units of the weights' norm, where two independent models are sqrt(2) apart; 4-bit rounding stays well below.
FINGERPRINT_TOLERANCE = 0.3
_FINGERPRINT_ROWS = 8
_FINGERPRINT_SIZE = 128
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
        calibration: {"slope", "offset", "winner": {"slope", "offset"}, "n", "prompts"}: P(right) = sigmoid(slope R +
            offset) of any candidate, and of the best of n; fitted on so many held-out prompts.
        pruning: {"interval", "prefix", "final", "value", "prices", "n", "prompts"}: which running candidates are
            hopeless; `prices` is a table from regret (as text) to price. The numbers are explained in
            `rewards/pruning.py`.
        adaptive: {"wave", "thresholds", "n", "prompts"}: candidates per wave, and a table from regret (as text) to the
            P(right) of the best candidate so far at which a prompt is done.

    Raises:
        ValueError: `calibration`, `pruning` or `adaptive` are damaged.
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
        for name, given in (("calibration", calibration), ("pruning", pruning), ("adaptive", adaptive)):
            if given is not None:
                check_decision(name, given)
            setattr(self, name, given)
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

        One token is run through the model to see how many hidden states it returns and how wide they are.

        Args:
            model: A decoder-only language model of transformers; a PEFT or compiled wrapper is looked through.
            layers: Indices into `hidden_states`; negative ones count from the end. Default: all, or none for a signal
                that is not made of them.
            **kwargs: Any other argument of [`ElhsrConfig`].

        Raises:
            ValueError: A layer that the model does not have, hidden states that are not (batch, tokens, width), layers
                for a signal that has none, or more log-probabilities than the vocabulary has tokens.
        """
        model = unwrap_language_model(model)
        states = _probe_hidden_states(model)
        text_config = model.config.get_text_config(decoder=True)
        signal = kwargs.get("signal", "hidden_states")
        if signal != "hidden_states":
            if layers:
                raise ValueError(f"The signal {signal!r} has no layers: leave out layers={layers}.")
            if signal == "top_log_probabilities":
                k = kwargs.setdefault("num_log_probabilities", _TOP_LOG_PROBABILITIES)
                if k > text_config.vocab_size:
                    raise ValueError(
                        f"num_log_probabilities={k}: more than the {text_config.vocab_size} tokens of the vocabulary."
                    )
            chosen = []
        elif layers is None:
            chosen = list(range(len(states)))
        else:
            outside = [layer for layer in layers if not -len(states) <= layer < len(states)]
            if outside or not layers:
                raise ValueError(
                    f"layers={layers} cannot be read from this model: it returns {len(states)} hidden states, so give "
                    f"indices from 0 to {len(states) - 1} (or negative ones, counted from the end), at least one."
                )
            chosen = sorted({layer % len(states) for layer in layers})
        settings = {
            "hidden_size": states[0].shape[-1],
            "layers": chosen,
            "base_model": getattr(model.config, "_name_or_path", "") or None,
            "base_model_revision": getattr(model.config, "_commit_hash", None),
            "base_model_type": text_config.model_type,
            "base_num_hidden_layers": text_config.num_hidden_layers,
            "base_vocab_size": text_config.vocab_size,
            "fingerprint": model_fingerprint(model),
        }
        return cls(**(settings | kwargs))

    def check_fits(self, model: PreTrainedModel) -> None:
        """Refuse a language model that this head was not made for.

        Architecture, width, depth and vocabulary must agree, and the model's weights must be those of the
        fingerprint within `FINGERPRINT_TOLERANCE`. Paths and ids are never compared. What cannot be read (packed
        or offloaded weights) is not compared either, and a warning says so.

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
        if differences:
            raise ValueError(
                f"This reward head was made for {self.base_model or 'another model'} and does not fit "
                f"{getattr(model.config, '_name_or_path', '') or type(model).__name__}: {'; '.join(differences)}. "
                "Load the model that the head was made for, or train a head for this model."
            )


def unwrap_language_model(model: Any) -> PreTrainedModel:
    """The transformers model inside `torch.compile` and PEFT wrappers, or `model` itself."""
    model = getattr(model, "_orig_mod", model)
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"Expected a language model of transformers (a PreTrainedModel), got {type(model).__name__}.")
    return model


def model_fingerprint(model: PreTrainedModel) -> dict[str, Any]:
    """A few embedding rows and one late weight matrix, thinned out to 128 numbers each.

    Two models of the same shape differ in it; versions of the same weights in float32, bfloat16 or dense 4-bit do
    not, within `FINGERPRINT_TOLERANCE`. A light fine-tune of the same weights is not told apart.
    """
    name = _late_weight_name(model)
    fingerprint: dict[str, Any] = {"late_weight_name": name}
    for part, sample in (("embedding", _sample_embedding(model)), ("late_weight", _sample_parameter(model, name))):
        if sample is None:
            raise ValueError(
                f"The {part} weights of {type(model).__name__} cannot be read (packed or offloaded), so no fingerprint "
                "can be taken. Make the head's configuration from the model with dense weights in memory."
            )
        fingerprint[part] = [float(f"{value:.4g}") for value in sample.tolist()]
    return fingerprint


def fingerprint_differences(fingerprint: dict[str, Any], model: PreTrainedModel) -> list[str]:
    """What of a fingerprint the model contradicts, in words; empty where they agree."""
    name = fingerprint.get("late_weight_name")
    if not isinstance(name, str) or not all(_is_sample(fingerprint.get(part)) for part in ("embedding", "late_weight")):
        raise ValueError("The fingerprint in the head's config.json is damaged: download or save the head again.")
    samples = {"embedding": _sample_embedding(model), "late_weight": _sample_parameter(model, name)}
    differences = []
    for part, sample in samples.items():
        if sample is None:
            _warn_unread(part)
            continue
        wanted = torch.tensor(fingerprint[part], device="cpu", dtype=torch.float32)
        if sample.shape != wanted.shape:
            differences.append(f"{part} weights of another size")
            continue
        distance = float((sample - wanted).norm() / wanted.norm().clamp_min(1e-12))
        # `not <=` so that NaN weights differ, too
        if not distance <= FINGERPRINT_TOLERANCE:
            differences.append(
                f"{part} weights that are {distance:.2f} away from the head's fingerprint (at most "
                f"{FINGERPRINT_TOLERANCE} for the same weights in another precision)"
            )
    return differences


def _warn_unread(part: str) -> None:
    logger.warning_once(
        f"The model's {part} weights are packed or offloaded, so the reward head could not be held against them."
    )


def _probe_hidden_states(model: PreTrainedModel) -> tuple[torch.Tensor, ...]:
    inputs: dict[str, Any] = {"input_ids": torch.zeros(1, 1, dtype=torch.long, device=model.device)}
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


def _late_weight_name(model: PreTrainedModel) -> str:
    """The last weight matrix in the model's own order that is neither embedding nor output layer nor an adapter."""
    tied = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer}
    names = [
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim >= 2 and id(parameter) not in tied and "lora_" not in name
    ]
    return names[-1].replace(".base_layer.", ".")


def _sample_embedding(model: PreTrainedModel) -> torch.Tensor | None:
    weight = model.get_input_embeddings().weight
    if not _is_readable(weight):
        return None
    step = max(1, weight.shape[0] // _FINGERPRINT_ROWS)
    rows = weight.detach()[step // 2 :: step][:_FINGERPRINT_ROWS]
    return _thin_out(rows)


def _sample_parameter(model: PreTrainedModel, name: str) -> torch.Tensor | None:
    parameters = dict(model.named_parameters())
    module, _, last = name.rpartition(".")
    # PEFT puts a wrapped layer's own weights one level down
    weight = parameters.get(name, parameters.get(f"{module}.base_layer.{last}"))
    if weight is None:
        return torch.empty(0, device="cpu")
    return _thin_out(weight.detach()) if _is_readable(weight) else None


def _is_sample(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, int | float) for value in values)


def _is_readable(weight: torch.Tensor) -> bool:
    return weight.is_floating_point() and weight.device.type != "meta"


def _thin_out(weight: torch.Tensor) -> torch.Tensor:
    flat = weight.reshape(-1)
    # An odd stride, so that the sample wanders over the columns as well as the rows
    positions = torch.arange(_FINGERPRINT_SIZE, device=flat.device) * (flat.numel() // _FINGERPRINT_SIZE | 1)
    return flat[positions % flat.numel()].float().cpu()
