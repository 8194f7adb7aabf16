"""packed_linears: bfloat16 weights in the layout that the CPU's matrix units read, while decoding lasts.

A decoding step reads every weight once, for few rows; with weights in the plain layout it takes longer. The products
are the same to the bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_NO_ACTIVATION: tuple[str, list[Any], str] = ("none", [], "")


@contextmanager
def packed_linears(model: nn.Module) -> Iterator[None]:
    """Let plain bfloat16 linear layers read packed copies of their weights, on a CPU that multiplies bfloat16.

    The packed weights take as much memory as the weights. Afterwards they are freed and the model is as before. Copies
    and pickles of the model that are made meanwhile are those of the plain model.
    """
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    layers = [linear for linear in linears if _can_be_packed(linear)] if _cpu_multiplies_bfloat16() else []
    try:
        try:
            for layer in layers:
                layer.forward = _PackedForward(layer)  # type: ignore[method-assign]
            yield
        finally:
            _unpack(layers)
    finally:
        # An interrupt may have come into the first time; a second one changes nothing
        _unpack(layers)


def _unpack(layers: list[nn.Linear]) -> None:
    for layer in layers:
        vars(layer).pop("forward", None)


def _cpu_multiplies_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _can_be_packed(module: nn.Linear) -> bool:
    return (
        module.weight.device.type == "cpu"
        and module.weight.dtype == torch.bfloat16
        and type(module.weight) in (nn.Parameter, torch.Tensor)
        and "forward" not in vars(module)
    )


class _PackedForward:
    """The forward method of a linear layer, from packed weights. Copied or pickled it is the plain method."""

    def __init__(self, layer: nn.Linear):
        self._layer = layer
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), 8)

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        if input.dtype != torch.bfloat16 or torch.is_grad_enabled():
            return nn.Linear.forward(self._layer, input)
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            input, self._packed, self._layer.bias, *_NO_ACTIVATION
        )
        return product

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._layer, "forward")
