"""The equations of one token: [gate_logit_t, r_t] = W h_t + b, g_t = sigmoid(gate_logit_t)."""

from collections.abc import Iterable

import torch

# Numbers of a block of features that is made float32 at a time
_CACHED = 2**19
# Numbers that torch copies without sharing the work among threads
_COPIED_BY_ONE = 2**15


def token_outputs(
    features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """r_t and g_t for h_t, computed in float32: [gate_logit_t, r_t] = W h_t + b, g_t = sigmoid(gate_logit_t).

    Args:
        features: (..., L * d), any floating dtype.
        weight: (2, L * d), gate and reward; or (1, L * d), the reward alone, and then g_t = 1.
        bias: (2,) or (1,).

    Returns:
        r_t and g_t, both (...,) float32.
    """
    return rewards_and_gates(token_logits(features, weight, bias))


def token_logits(features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """W h_t + b in float32: (..., L * d) of any floating dtype, (rows, L * d) and (rows,) give (..., rows)."""
    # Autocast would compute it in half precision
    with torch.autocast(device_type=features.device.type, enabled=False):
        flat = features.reshape(-1, features.shape[-1])
        blocks: Iterable[torch.Tensor]
        if flat.device.type == "cpu" and flat.dtype != torch.float32:
            # A float32 copy of many tokens would be written to memory and read again; that of a few stays cached
            blocks = map(_float32_copy, flat.split(max(1, _CACHED // flat.shape[-1])))
        else:
            blocks = [flat.float()]
        # With the few rows of weights on the left: several times faster than nn.functional.linear
        logits = torch.cat([torch.addmm(bias[:, None], weight, block.T).T for block in blocks])
    return logits.reshape(*features.shape[:-1], len(bias))


def token_logits_by_part(parts: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """W h_t + b in float32, from the parts of h_t one after the other: they need not be copied side by side.

    Args:
        parts: (L, tokens, d), any floating dtype.
        weight: (rows, L * d) float32.
        bias: (rows,) float32.

    Returns:
        (tokens, rows) float32.
    """
    with torch.autocast(device_type=parts.device.type, enabled=False):
        weight_by_part = weight.view(len(weight), len(parts), -1).transpose(0, 1)
        return torch.bmm(weight_by_part, parts.float().transpose(1, 2)).sum(dim=0).T + bias


def _float32_copy(features: torch.Tensor) -> torch.Tensor:
    # Larger tensors are copied by all threads, and a product with so few rows is computed by one, which would have to
    # fetch most of the copy from the caches of other cores
    copy = torch.empty(features.shape, dtype=torch.float32)
    for own, given in zip(copy.view(-1).split(_COPIED_BY_ONE), features.reshape(-1).split(_COPIED_BY_ONE), strict=True):
        own.copy_(given)
    return copy


def rewards_and_gates(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """r_t and g_t from (..., 2), the gate's logit and the reward, or from (..., 1), the reward alone (g_t = 1)."""
    rewards = logits[..., -1]
    return rewards, torch.sigmoid(logits[..., 0]) if logits.shape[-1] == 2 else torch.ones_like(rewards)
