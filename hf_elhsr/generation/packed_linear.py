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

    The copies take as much memory as the weights. Afterwards they are freed and the model is as before.
    """
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    layers = [linear for linear in linears if _can_be_packed(linear)] if _cpu_multiplies_bfloat16() else []
    try:
        for layer in layers:
            layer.forward = _packed_forward(layer)  # type: ignore[method-assign]
        yield
    finally:
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


def _packed_forward(layer: nn.Linear) -> Any:
    packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), 8)

    def forward(input: torch.Tensor) -> torch.Tensor:
        if input.dtype != torch.bfloat16 or torch.is_grad_enabled():
            return nn.Linear.forward(layer, input)
        return torch.ops.mkldnn._linear_pointwise(input, packed, layer.bias, *_NO_ACTIVATION)  # type: ignore[no-any-return]

    return forward
