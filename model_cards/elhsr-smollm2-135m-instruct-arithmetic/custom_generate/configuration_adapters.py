# Made by hf_elhsr 0.1.0 from its hf_elhsr/configuration_adapters.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""The adapters (PEFT) on a language model: which are in force, and their weights.

They are read off the layers that PEFT puts into the model, so that neither PEFT itself nor its wrapper is needed.
"""

import operator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


def learns_prompts(wrapper: Any) -> bool:
    """Whether this is a PEFT wrapper that puts learned prompts before the model's inputs, as prefix tuning does."""
    return bool(getattr(getattr(wrapper, "active_peft_config", None), "is_prompt_learning", False))


def adapters_in_force(model: PreTrainedModel) -> list[str]:
    """Names of the adapters that change what the model computes now, in alphabetical order."""
    return sorted({name for layer in _adapted_layers(model) for name in _in_force(layer)})


def weights_in_force(model: PreTrainedModel) -> dict[str, list[torch.Tensor]]:
    """By kind (such as "lora_A" and "scaling"), the weights of the adapters in force, in the order of the layers.

    The names of adapters, which are chosen in loading them, have no part in it.
    """
    found: dict[str, list[torch.Tensor]] = {}
    for layer in _adapted_layers(model):
        for name in _in_force(layer):
            for kind, weights in _weights_by_kind(layer).items():
                if name in weights:
                    found.setdefault(kind, []).extend(_tensors(weights[name]))
            scaling = getattr(layer, "scaling", None)
            if isinstance(scaling, dict) and name in scaling:
                found.setdefault("scaling", []).append(torch.tensor([float(scaling[name])], device="cpu"))
    return {kind: tensors for kind, tensors in found.items() if tensors}


def adapter_parameters(model: PreTrainedModel) -> set[int]:
    """The ids of all parameters that belong to adapters, in force or not."""
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


def _in_force(layer: Any) -> list[str]:
    if layer.disable_adapters:
        return []
    names = layer.merged_adapters or layer.active_adapters
    return [name for name in names if any(name in weights for weights in _weights_by_kind(layer).values())]


def _weights_by_kind(layer: Any) -> dict[str, Any]:
    return {kind: operator.attrgetter(kind)(layer) for kind in layer.adapter_layer_names}


def _tensors(own: torch.Tensor | nn.Module) -> list[torch.Tensor]:
    return [own] if isinstance(own, torch.Tensor) else list(own.parameters())
