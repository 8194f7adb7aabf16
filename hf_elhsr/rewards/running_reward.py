"""RunningReward: a head's reward of every candidate while it is written, from running sums."""

import torch

from ..modeling_elhsr import ElhsrRewardHead, rewards_and_gates, token_logits
from ..signals import SignalNeeds, StepSignal
from .processor import SignalProcessor
from .pruning import prefix_features
from .token_store import TokenStore


class RunningReward(SignalProcessor):
    """Keeps sum_t g_t r_t and sum_t g_t per candidate, so that R is known after every token.

    For pruning, the sums of r_t and v_t and the number of tokens are kept, too.

    Nothing grows with the length of the completion, unless `keep_tokens` asks for every r_t and g_t.

    Args:
        head: The reward head. It is read, never moved or changed.
        keep_tokens: Also keep `token_rewards`, `token_gates` and, for heads with `config.value`, `token_values`.
    """

    def __init__(self, head: ElhsrRewardHead, keep_tokens: bool = False):
        self.needs = SignalNeeds(layers=frozenset(head.config.layers))
        self.keep_tokens = keep_tokens
        self._head = head
        self._tokens = TokenStore("rewards", "gates", *(["values"] if head.config.value else []))

    def begin(self, num_candidates: int, device: torch.device) -> None:
        head, has_values = self._head, self._head.config.value
        # One product gives all numbers of a token
        weight = torch.cat([head.weight, head.value_weight]) if has_values else head.weight
        bias = torch.cat([head.bias, head.value_bias]) if has_values else head.bias
        self._weight = weight.detach().to(device, torch.float32)
        self._bias = bias.detach().to(device, torch.float32)
        self._weighted_sum = torch.zeros(num_candidates, device=device, dtype=torch.float32)
        self._gate_sum = torch.zeros(num_candidates, device=device, dtype=torch.float32)
        self._value_sum = torch.zeros(num_candidates if has_values else 0, device=device, dtype=torch.float32)
        self._reward_sum = torch.zeros(num_candidates, device=device, dtype=torch.float32)
        self._count = torch.zeros(num_candidates, device=device, dtype=torch.float32)
        self._tokens.begin(num_candidates, device)

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        features = signal.features(self._head.config.layers, self._weight.device)
        # masked_fill, not a product: what the model makes of padding may be anything
        logits = token_logits(features, self._weight, self._bias).masked_fill(~signal.active[:, None], 0.0)
        own = len(self._head.bias)
        rewards, gates = rewards_and_gates(logits[:, :own])
        gates = gates.masked_fill(~signal.active, 0.0)
        if self._head.config.value:
            self._value_sum.index_add_(0, signal.candidates, logits[:, own])
        self._weighted_sum.index_add_(0, signal.candidates, gates * rewards)
        self._gate_sum.index_add_(0, signal.candidates, gates)
        self._reward_sum.index_add_(0, signal.candidates, rewards)
        self._count.index_add_(0, signal.candidates, signal.active.to(self._count))
        if self.keep_tokens:
            self._tokens.add(signal.candidates, signal.active, rewards, gates, *logits[:, own:].T)

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        self._weighted_sum = self._weighted_sum[index]
        self._gate_sum = self._gate_sum[index]
        self._reward_sum = self._reward_sum[index]
        if self._head.config.value:
            self._value_sum = self._value_sum[index]
        self._count = self._count[index]
        self._tokens.multiply(index)

    @property
    def rewards(self) -> torch.Tensor:
        """(candidates,) float32: R = sum_t g_t r_t / max(sum_t g_t, eps) over the tokens seen so far."""
        return self._weighted_sum / self._gate_sum.clamp_min(self._head.config.eps)

    @property
    def prefix_features(self) -> torch.Tensor:
        """(candidates, 3 or 4) float32: what pruning judges candidates by, see [`prefix_features`]."""
        return prefix_features(
            self._weighted_sum,
            self._gate_sum,
            self._reward_sum,
            self._count.clamp_min(1),
            self._head.config.eps,
            self._value_sum if self._head.config.value else None,
        )

    @property
    def token_rewards(self) -> torch.Tensor:
        """(candidates, tokens) float32: r_t, zero past a candidate's end. Needs `keep_tokens`."""
        return self._kept("rewards")

    @property
    def token_gates(self) -> torch.Tensor:
        """(candidates, tokens) float32: g_t, zero past a candidate's end. Needs `keep_tokens`."""
        return self._kept("gates")

    @property
    def token_values(self) -> torch.Tensor:
        """(candidates, tokens) float32: v_t, zero past a candidate's end. Needs `keep_tokens` and `config.value`."""
        return self._kept("values")

    def _kept(self, name: str) -> torch.Tensor:
        if not self.keep_tokens:
            raise ValueError("Token rewards and gates were not kept: make it RunningReward(head, keep_tokens=True).")
        return self._tokens[name]
