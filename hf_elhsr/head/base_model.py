"""The language model that a head reads: unwrapped, recognised by its weights, and run over whole sequences.

There is a fingerprint of the model, a few of its weights, and one of the adapters (PEFT) that are active on it.
Adapters are found by the layers that PEFT puts into the model, so that neither PEFT nor its wrapper is needed.
"""

import hashlib
import inspect
import operator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from ..transformers_internals import position_ids

logger = logging.get_logger(__name__)

# In units of the weights' norm: two independent models are sqrt(2) apart, and 4-bit rounding stays well below this
FINGERPRINT_TOLERANCE = 0.3
_FINGERPRINT_ROWS = 8
_FINGERPRINT_SIZE = 128
_ADAPTER_MATRICES = 8
_ADAPTER_SIZE = 16


def learns_prompts(wrapper: Any) -> bool:
    """Whether this is a PEFT wrapper that puts learned prompts before the model's inputs, as prefix tuning does."""
    return bool(getattr(getattr(wrapper, "active_peft_config", None), "is_prompt_learning", False))


def active_adapters(model: PreTrainedModel) -> list[str]:
    """Names of the adapters that are active on the model, in alphabetical order."""
    return sorted({name for layer in _adapted_layers(model) for name in _active(layer)})


def active_adapter_weights(model: PreTrainedModel) -> dict[str, list[torch.Tensor]]:
    """The weights of the active adapters by kind (such as "lora_A" and "scaling"), in the order of the layers.

    They do not depend on the adapters' names, which are chosen when loading them.
    """
    found: dict[str, list[torch.Tensor]] = {}
    for layer in _adapted_layers(model):
        for name in _active(layer):
            for kind, weights in _weights_by_kind(layer).items():
                if name in weights:
                    found.setdefault(kind, []).extend(_tensors(weights[name]))
            scaling = getattr(layer, "scaling", None)
            if isinstance(scaling, dict) and name in scaling:
                found.setdefault("scaling", []).append(torch.tensor([float(scaling[name])], device="cpu"))
    return {kind: tensors for kind, tensors in found.items() if tensors}


def adapter_parameters(model: PreTrainedModel) -> set[int]:
    """The ids of all parameters that belong to adapters, active or not."""
    return {
        id(parameter)
        for layer in _adapted_layers(model)
        for weights in _weights_by_kind(layer).values()
        for own in weights.values()
        for parameter in _tensors(own)
    }


def _adapted_layers(model: PreTrainedModel) -> list[Any]:
    names = ("adapter_layer_names", "active_adapters", "disable_adapters", "merged_adapters")
    return [module for module in model.modules() if all(hasattr(module, name) for name in names)]


def _active(layer: Any) -> list[str]:
    if layer.disable_adapters:
        return []
    names = layer.merged_adapters or layer.active_adapters
    return [name for name in names if any(name in weights for weights in _weights_by_kind(layer).values())]


def _weights_by_kind(layer: Any) -> dict[str, Any]:
    return {kind: operator.attrgetter(kind)(layer) for kind in layer.adapter_layer_names}


def _tensors(own: torch.Tensor | nn.Module) -> list[torch.Tensor]:
    return [own] if isinstance(own, torch.Tensor) else list(own.parameters())


def model_fingerprint(model: PreTrainedModel) -> dict[str, Any]:
    """Sample a few embedding rows and one late weight matrix, 128 numbers each.

    Two models of the same shape have different fingerprints; versions of the same weights in float32, bfloat16 or dense
    4-bit agree within `FINGERPRINT_TOLERANCE`. A light fine-tune of the same weights is not recognised as different.
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


def fingerprint_differences(
    fingerprint: dict[str, Any], model: PreTrainedModel, vocabulary: int | None = None
) -> list[str]:
    """The differences between a fingerprint and the model, in words; empty where they agree.

    Args:
        vocabulary: How many embedding rows the fingerprint was taken of; those that the model has, too, are compared.
            Default: as many as the model has.
    """
    name = fingerprint.get("late_weight_name")
    if not isinstance(name, str) or not all(_is_sample(fingerprint.get(part)) for part in ("embedding", "late_weight")):
        raise ValueError("The fingerprint in the head's config.json is damaged: download or save the head again.")
    samples = {"embedding": _sample_embedding(model, vocabulary), "late_weight": _sample_parameter(model, name)}
    differences = []
    for part, sample in samples.items():
        if sample is None:
            _warn_unread(part)
            continue
        wanted = torch.tensor(fingerprint[part], device="cpu", dtype=torch.float32)
        if part == "embedding" and vocabulary is not None and sample.shape == wanted.shape:
            in_both = _sampled_rows_exist(model, vocabulary)
            sample, wanted = sample[in_both], wanted[in_both]
        if sample.shape != wanted.shape or not len(sample):
            differences.append(f"{part} weights of a different size")
            continue
        distance = _distance(sample, wanted)
        # `not <=` because NaN weights must count as different
        if not distance <= FINGERPRINT_TOLERANCE:
            differences.append(
                f"{part} weights that are {distance:.2f} away from the head's fingerprint (at most "
                f"{FINGERPRINT_TOLERANCE} for the same weights in another precision)"
            )
    return differences


def fingerprint_distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest distance between parts of two fingerprints, of models or adapters, relative to the second's norm."""
    parts = one.keys() | other.keys()
    if any(_is_sample(one.get(part)) != _is_sample(other.get(part)) for part in parts):
        return float("inf")
    numbers = [part for part in parts if _is_sample(one.get(part))]
    samples = {part: (torch.tensor(one[part]), torch.tensor(other[part])) for part in numbers}
    if any(sample.shape != wanted.shape for sample, wanted in samples.values()):
        return float("inf")
    return max((_distance(sample.float(), wanted.float()) for sample, wanted in samples.values()), default=0.0)


def adapter_fingerprint(model: PreTrainedModel) -> dict[str, list[float]] | None:
    """Sample a few numbers of the active adapters by kind of weight (such as "lora_A"); None without adapters.

    Kinds are compared one by one, since adapters with the same initial weights may differ in only one of them.

    Raises:
        ValueError: The adapter's weights cannot be read.
    """
    fingerprint = {}
    for kind, sample in _sample_adapters(model).items():
        if sample is None:
            raise ValueError(
                f"The adapter's {kind} cannot be read (packed or offloaded), so no fingerprint can be taken. Make the "
                "head's configuration with the adapter's weights in memory."
            )
        fingerprint[kind] = [float(f"{value:.4g}") for value in sample.tolist()]
    return fingerprint or None


def adapter_differences(fingerprint: dict[str, Any], model: PreTrainedModel) -> list[str]:
    """The differences between a fingerprint and the active adapters, in words; empty where they agree."""
    if not isinstance(fingerprint, dict) or not all(_is_sample(sample) for sample in fingerprint.values()):
        raise ValueError("The adapter's fingerprint in the head's config.json is damaged: save the head again.")
    samples = _sample_adapters(model)
    if not samples:
        return [
            "an adapter (head) against none active (model): load or enable it; if it was merged permanently into the "
            "model's weights, set head.config.adapter = None"
        ]
    if samples.keys() != fingerprint.keys():
        return [f"an adapter of {', '.join(sorted(fingerprint))} (head) against {', '.join(sorted(samples))} (model)"]
    differences = []
    for kind, sample in samples.items():
        if sample is None:
            _warn_unread("adapter")
            continue
        wanted = torch.tensor(fingerprint[kind], device="cpu", dtype=torch.float32)
        distance = _distance(sample, wanted) if sample.shape == wanted.shape else float("inf")
        if not distance <= FINGERPRINT_TOLERANCE:
            differences.append(
                f"a different adapter: its {kind} is {distance:.2f} away from that of the head's adapter"
            )
    return differences


def _distance(sample: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((sample - wanted).norm() / wanted.norm().clamp_min(1e-12))


def _warn_unread(part: str) -> None:
    logger.warning_once(
        f"The model's {part} weights are packed or offloaded, so they were not compared with the reward head's."
    )


def _late_weight_name(model: PreTrainedModel) -> str:
    """The last weight matrix in the model's own order that is neither embedding nor output layer nor an adapter."""
    tied = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer}
    left_out = tied | adapter_parameters(model)
    names = [
        name
        for name, parameter in model.named_parameters()
        # Under this name PEFT keeps the originals of layers that it trains copies of, such as embeddings
        if parameter.ndim >= 2 and id(parameter) not in left_out and ".original_module." not in name
    ]
    return names[-1].replace(".base_layer.", ".")


def _sample_embedding(model: PreTrainedModel, vocabulary: int | None = None) -> torch.Tensor | None:
    """(numbers,) float32 of a few rows, zeros for those that the model does not have; None if they cannot be read."""
    weight = _plain(_embedding_weight(model))
    if weight is None:
        return None
    rows = _sampled_rows(vocabulary or weight.shape[0], weight.device)
    sampled = weight[rows.clamp_max(weight.shape[0] - 1)]
    return _thin_out(sampled.masked_fill((rows >= weight.shape[0])[:, None], 0.0))


def _sampled_rows_exist(model: PreTrainedModel, vocabulary: int) -> torch.Tensor:
    """(numbers,) bool: which numbers of [`_sample_embedding`] are of rows that the model has."""
    count, width = _embedding_weight(model).shape
    exist = _sampled_rows(vocabulary, torch.device("cpu")) < count
    return _thin_out(exist[:, None].expand(-1, width).float()).bool()


def _embedding_weight(model: PreTrainedModel) -> torch.Tensor:
    embeddings = model.get_input_embeddings()
    weight: torch.Tensor = getattr(embeddings, "original_module", embeddings).weight
    return weight


def _sampled_rows(count: int, device: torch.device) -> torch.Tensor:
    step = max(1, count // _FINGERPRINT_ROWS)
    return torch.arange(step // 2, count, step, device=device)[:_FINGERPRINT_ROWS]


def _sample_parameter(model: PreTrainedModel, name: str) -> torch.Tensor | None:
    parameters = dict(model.named_parameters())
    module, _, last = name.rpartition(".")
    # PEFT moves a wrapped layer's own weights one level down
    places = (name, f"{module}.base_layer.{last}", f"{module}.original_module.{last}")
    weight = next((parameters[place] for place in places if place in parameters), None)
    if weight is None:
        return torch.empty(0, device="cpu")
    plain = _plain(weight)
    return None if plain is None else _thin_out(plain)


def _sample_adapters(model: PreTrainedModel) -> dict[str, torch.Tensor | None]:
    """(numbers,) float32 by kind; None where the weights cannot be read."""
    samples: dict[str, torch.Tensor | None] = {}
    for kind, tensors in active_adapter_weights(model).items():
        chosen = tensors[:: max(1, len(tensors) // _ADAPTER_MATRICES)][:_ADAPTER_MATRICES]
        plain = [tensor for tensor in map(_plain, chosen) if tensor is not None]
        thinned = [_thin_out(tensor, min(_ADAPTER_SIZE, tensor.numel())) for tensor in plain]
        samples[kind] = torch.cat(thinned) if len(plain) == len(chosen) else None
    return samples


def _is_sample(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(_is_weight(value) for value in values)


def _is_weight(value: Any) -> bool:
    # An integer of many digits is no float
    return isinstance(value, int | float) and abs(value) <= torch.finfo(torch.float64).max


def _plain(weight: torch.Tensor) -> torch.Tensor | None:
    """The weight as an ordinary tensor of numbers; None if it is packed in an unknown format, or offloaded."""
    weight = weight.detach()
    if not weight.is_floating_point() or weight.device.type == "meta":
        return None
    if type(weight) is torch.Tensor:
        return weight
    # Quantised weights of torchao and the like claim to be floating-point, and can be dequantised
    unpacks = type(weight).dequantize is not torch.Tensor.dequantize
    return weight.dequantize() if unpacks else None


def _thin_out(weight: torch.Tensor, size: int = _FINGERPRINT_SIZE) -> torch.Tensor:
    flat = weight.reshape(-1)
    # With an odd stride the sample covers columns as well as rows
    positions = torch.arange(size, device=flat.device) * (flat.numel() // size | 1)
    return flat[positions % flat.numel()].float().cpu()


def unwrap_language_model(model: Any) -> PreTrainedModel:
    """The transformers model inside `torch.compile` and PEFT wrappers, or `model` itself."""
    model = getattr(model, "_orig_mod", model)
    if learns_prompts(model):
        raise ValueError(
            "This PEFT adapter learns prompts (prompt or prefix tuning), which precede the model's inputs instead of "
            "changing the model, so its tokens cannot be followed. Use an adapter of the weights, such as LoRA."
        )
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    wrapped = getattr(model, "module", None)
    if not isinstance(model, PreTrainedModel) and isinstance(wrapped, nn.Module):
        raise ValueError(
            f"This is a {type(model).__name__} around a {type(wrapped).__name__}, which shares batches among devices "
            "or processes: pass the model inside, its `.module` (accelerate.unwrap_model returns it, too)."
        )
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"Expected a language model of transformers (a PreTrainedModel), got {type(model).__name__}.")
    return model


def plain_inputs(
    model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, **more: Any
) -> dict[str, Any]:
    """The inputs of one forward pass over whole sequences: no cache, and as few logits as the model allows."""
    accepted = inspect.signature(model.forward).parameters
    if unknown := sorted(more.keys() - accepted.keys()):
        raise ValueError(f"{type(model).__name__} does not accept {', '.join(unknown)}: see its forward method.")
    inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, **more}
    if "position_ids" in accepted and "position_ids" not in inputs:
        inputs["position_ids"] = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)
        if more and model.can_generate():  # images may have positions of their own
            inputs["position_ids"] = position_ids(model, input_ids, inputs)
    return inputs | {name: value for name, value in (("use_cache", False), ("logits_to_keep", 1)) if name in accepted}


def model_digest(model: PreTrainedModel) -> str | None:
    """SHA-256 of the fingerprints of a model and its adapter; None if their weights cannot be read."""
    try:
        fingerprints = [model_fingerprint(model), adapter_fingerprint(model)]
    except ValueError:
        # Of a packed model only some weights can be read, which do not identify it
        return None
    return hashlib.sha256(str(fingerprints).encode()).hexdigest()
