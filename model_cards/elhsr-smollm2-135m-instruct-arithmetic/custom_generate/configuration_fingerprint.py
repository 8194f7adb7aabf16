# Made by hf_elhsr 0.1.0 from its hf_elhsr/configuration_fingerprint.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""The fingerprint of a language model: a few of its weights, by which a head knows the model it was made for."""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

logger = logging.get_logger(__name__)

# In units of the weights' norm, where two independent models are sqrt(2) apart; 4-bit rounding stays well below.
FINGERPRINT_TOLERANCE = 0.3
_FINGERPRINT_ROWS = 8
_FINGERPRINT_SIZE = 128


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
