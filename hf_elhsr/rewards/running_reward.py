"""RunningReward: a head's reward of every candidate while it is written, from two running sums."""

import torch

from ..modeling_elhsr import ElhsrRewardHead, token_outputs
from ..signals import SignalNeeds, StepSignal
from .processor import SignalProcessor


class RunningReward(SignalProcessor):
    """Keeps sum_t g_t r_t and sum_t g_t per candidate, so that R is known after every token.

    Nothing grows with the length of the completion, unless `keep_tokens` asks for every r_t and g_t.

    Args:
        head: The reward head. It is read, never moved or changed.
        keep_tokens: Also keep `token_rewards` and `token_gates`.
    """

    def __init__(self, head: ElhsrRewardHead, keep_tokens: bool = False):
        self.needs = SignalNeeds(layers=frozenset(head.config.layers))
        self.keep_tokens = keep_tokens
        self._head = head

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._weight = self._head.weight.detach().to(device, torch.float32)
        self._bias = self._head.bias.detach().to(device, torch.float32)
        self._weighted_sum = torch.zeros(num_candidates, device=device, dtype=torch.float32)
        self._gate_sum = torch.zeros(num_candidates, device=device, dtype=torch.float32)
        self._steps: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        features = signal.features(self._head.config.layers, self._weight.device)
        rewards, gates = token_outputs(features, self._weight, self._bias)
        # masked_fill, not a product: what the model makes of padding may be anything
        rewards = rewards.masked_fill(~signal.active, 0.0)
        gates = gates.masked_fill(~signal.active, 0.0)
        self._weighted_sum.index_add_(0, signal.candidates, gates * rewards)
        self._gate_sum.index_add_(0, signal.candidates, gates)
        if self.keep_tokens:
            step = torch.zeros(2, len(self._gate_sum), device=rewards.device, dtype=torch.float32)
            step[:, signal.candidates] = torch.stack([rewards, gates])
            self._steps.append((step[0], step[1]))

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        self._weighted_sum = self._weighted_sum[index]
        self._gate_sum = self._gate_sum[index]
        self._steps = [(rewards[index], gates[index]) for rewards, gates in self._steps]

    @property
    def rewards(self) -> torch.Tensor:
        """(candidates,) float32: R = sum_t g_t r_t / max(sum_t g_t, eps) over the tokens seen so far."""
        return self._weighted_sum / self._gate_sum.clamp_min(self._head.config.eps)

    @property
    def token_rewards(self) -> torch.Tensor:
        """(candidates, tokens) float32: r_t, zero past a candidate's end. Needs `keep_tokens`."""
        return self._stack(0)

    @property
    def token_gates(self) -> torch.Tensor:
        """(candidates, tokens) float32: g_t, zero past a candidate's end. Needs `keep_tokens`."""
        return self._stack(1)

    def _stack(self, which: int) -> torch.Tensor:
        if not self.keep_tokens:
            raise ValueError("Token rewards and gates were not kept: make it RunningReward(head, keep_tokens=True).")
        return torch.stack([step[which] for step in self._steps], dim=-1)
