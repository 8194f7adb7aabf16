"""The equations of one token, and the sums over the tokens of a completion.

[gate_logit_t, r_t] = W h_t + b        g_t = sigmoid(gate_logit_t)        R = sum_t g_t r_t / max(sum_t g_t, eps)
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

# Size of the blocks of features that are converted to float32, in numbers
_CACHED = 2**19
# The most numbers that torch copies in one thread
_COPIED_BY_ONE = 2**15
# Below the gates that heads produce in practice, and above zero, so that the logarithm exists
_GATE_FLOOR = 1e-6


@dataclass(frozen=True)
class TokenOutputs:
    """A head's outputs for every token, (...,) float32 each.

    Args:
        rewards: r_t.
        gates: g_t, at least 0: a token's weight in R. One for heads without a gate.
        values: v_t for heads with `config.value`; None for others.
    """

    rewards: torch.Tensor
    gates: torch.Tensor
    values: torch.Tensor | None = None


@dataclass(frozen=True)
class Aggregation:
    """The few running sums that are kept of a completion, however many tokens it has, and R, which follows from them.

    Args:
        eps: Floor of the sum of gates.
        value: Whether tokens have values v_t.
    """

    eps: float
    value: bool

    def summands(self, tokens: TokenOutputs) -> torch.Tensor:
        """(..., 4 or 5): g_t r_t, g_t, r_t, 1 and, with values, v_t. R follows from their sums over tokens."""
        rewards, gates = tokens.rewards, tokens.gates
        values = [] if tokens.values is None else [tokens.values]
        return torch.stack([gates * rewards, gates, rewards, torch.ones_like(gates), *values], dim=-1)

    def zeros(self, rows: int, device: torch.device) -> torch.Tensor:
        """(rows, 4 or 5) float32: the sums of no tokens."""
        return torch.zeros(rows, 5 if self.value else 4, device=device, dtype=torch.float32)

    def mean(self, weighted_sum: torch.Tensor, gate_sum: torch.Tensor) -> torch.Tensor:
        """sum_t g_t x_t / max(sum_t g_t, eps): the gate-weighted mean of any x_t, from its two sums."""
        return weighted_sum / gate_sum.clamp_min(self.eps)

    def rewards(self, sums: torch.Tensor) -> torch.Tensor:
        """R: the gate-weighted mean of r_t, from (..., 4 or 5) sums of [`summands`]."""
        return self.mean(sums[..., 0], sums[..., 1])

    @property
    def num_prefix_features(self) -> int:
        """How many numbers [`prefix_features`] returns."""
        return 4 if self.value else 3

    def prefix_features(self, sums: torch.Tensor) -> torch.Tensor:
        """Features of a candidate after t tokens: R_t, the plain mean of r_t, the log of the mean gate, and V_t.

        The plain mean is included because gates are trained to weight whole completions: early on they are small, and
        R_t depends on a few tokens.

        Args:
            sums: (..., 4 or 5) of [`summands`].

        Returns:
            (..., 3), or (..., 4) with values, in the dtype of the sums. The first is the running reward, which is R
            for a finished candidate.
        """
        steps = sums[..., 3].clamp_min(1)
        mean_gate = (sums[..., 1] / steps).clamp_min(_GATE_FLOOR)
        known = [self.rewards(sums), sums[..., 2] / steps, mean_gate.log()]
        return torch.stack([*known, sums[..., 4] / steps] if self.value else known, dim=-1)


def linear(features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """W h_t + b in float32: (..., L * d) of any floating dtype, (rows, L * d) and (rows,) give (..., rows)."""
    # Autocast would compute it in half precision
    with torch.autocast(device_type=features.device.type, enabled=False):
        flat = features.reshape(-1, features.shape[-1])
        blocks: Iterable[torch.Tensor]
        if flat.device.type == "cpu" and flat.dtype != torch.float32:
            # A float32 copy of many tokens would be written to memory and read again; a copy of a few stays cached
            blocks = map(_float32_copy, flat.split(max(1, _CACHED // flat.shape[-1])))
        else:
            blocks = [flat.float()]
        # With the few rows of weights on the left: several times faster than nn.functional.linear
        logits = torch.cat([torch.addmm(bias[:, None], weight, block.T).T for block in blocks])
    return logits.reshape(*features.shape[:-1], len(bias))


def linear_by_part(parts: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """W h_t + b in float32, from the parts of h_t in turn, which need not be concatenated.

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
