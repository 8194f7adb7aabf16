"""PooledRecorder: the gate-weighted mean of every candidate's features, taken while decoding."""

import torch

from ..modeling_elhsr import ElhsrRewardHead
from ..modeling_tokens import rewards_and_gates, token_logits
from ..rewards import SignalProcessor
from ..signals import StepSignal, head_features, head_needs


class PooledRecorder(SignalProcessor):
    """Keeps sum_t g_t h_t and sum_t g_t per candidate, with a head's gates.

    With the gates given, R = W_r (sum_t g_t h_t / sum_t g_t) + b_r: the pooled features are all that the row of R has
    to be trained on, and take L * d numbers a candidate, however long it is.

    Args:
        head: Whose gates weigh the tokens. It is read, never moved or changed.
    """

    def __init__(self, head: ElhsrRewardHead):
        self.needs = head_needs(head.config)
        self._head = head

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._weight = self._head.weight.detach().to(device, torch.float32)
        self._bias = self._head.bias.detach().to(device, torch.float32)
        self._weighted_sum = torch.zeros(num_candidates, self._weight.shape[1], device=device)
        self._gate_sum = torch.zeros(num_candidates, device=device)

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        features = head_features(self._head.config, input_ids, signal, self._weight.device)[signal.active].float()
        candidates = signal.candidates[signal.active]
        gates = rewards_and_gates(token_logits(features, self._weight, self._bias))[1]
        self._weighted_sum.index_add_(0, candidates, features.mul_(gates[:, None]))
        self._gate_sum.index_add_(0, candidates, gates)

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        self._weighted_sum = self._weighted_sum[index]
        self._gate_sum = self._gate_sum[index]

    def features(self) -> torch.Tensor:
        """(candidates, L * d) float32: sum_t g_t h_t / max(sum_t g_t, eps)."""
        return self._weighted_sum / self._gate_sum.clamp_min(self._head.config.eps)[:, None]
