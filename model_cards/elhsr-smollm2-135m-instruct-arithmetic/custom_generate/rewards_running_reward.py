# Made by hf_elhsr 0.1.0 from its hf_elhsr/rewards/running_reward.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""RunningReward: a head's reward of every candidate while it is written, from running sums."""

import torch

from .decisions_pruning import prefix_features
from .head_modeling_elhsr import ElhsrRewardHead
from .head_signals import StepSignal, head_needs, head_parts
from .head_token_outputs import rewards_and_gates, token_logits_by_part
from .rewards_processor import SignalProcessor, TokenStore

# Steps wait until they have so many tokens, or so many numbers to be read: those of one step cost less in arithmetic
# than in calls and cold caches, and those of too many do not stay cached while they are scored
_TOKENS_AT_ONCE = 256
_NUMBERS_AT_ONCE = 2**20


class RunningReward(SignalProcessor):
    """Keeps sum_t g_t r_t and sum_t g_t per candidate, so that R is known after every token.

    For pruning, the sums of r_t and v_t and the number of tokens are kept, too.

    The features of a few steps wait until they are scored together, or until somebody asks: when that is shows in the
    last bits of a reward. Nothing grows with the length of the completion, unless `keep_tokens` asks for every r_t and
    g_t.

    Args:
        head: The reward head. It is read, never moved or changed.
        keep_tokens: Also keep `token_rewards`, `token_gates` and, for heads with `config.value`, `token_values`.
    """

    def __init__(self, head: ElhsrRewardHead, keep_tokens: bool = False):
        self.needs = head_needs(head.config)
        self.keep_tokens = keep_tokens
        self.head = head
        self._tokens = TokenStore("rewards", "gates", *(["values"] if head.config.value else []))

    def begin(self, num_candidates: int, device: torch.device) -> None:
        head, has_values = self.head, self.head.config.value
        # One product gives all numbers of a token
        weight = torch.cat([head.weight, head.value_weight]) if has_values else head.weight
        bias = torch.cat([head.bias, head.value_bias]) if has_values else head.bias
        self._weight = weight.detach().to(device, torch.float32)
        self._bias = bias.detach().to(device, torch.float32)
        # One row of sums: g_t r_t, g_t, r_t, the tokens, and v_t where the head has it; one addition serves them all
        self._sums = torch.zeros(num_candidates, 5 if has_values else 4, device=device, dtype=torch.float32)
        self._tokens.begin(num_candidates, device)
        self._waiting: list[tuple[list[torch.Tensor], list[int], torch.Tensor, torch.Tensor]] = []
        self._waiting_tokens = 0

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        parts = head_parts(self.head.config, input_ids, signal, self._weight.device)
        if self._weight.device.type != "cpu":
            # Compiled for an accelerator, the next step may write its hidden states over these
            parts = [torch.cat(parts, dim=-1)]
        self._waiting.append((parts, _versions(parts), signal.candidates, signal.active))
        self._waiting_tokens += len(signal.candidates)
        if self._waiting_tokens >= min(_TOKENS_AT_ONCE, _NUMBERS_AT_ONCE // self._weight.shape[1]):
            self._score_waiting()

    def _score_waiting(self) -> None:
        if not self._waiting:
            return
        steps, versions, candidates, active = zip(*self._waiting, strict=True)
        if any(_versions(parts) != before for parts, before in zip(steps, versions, strict=True)):
            raise ValueError(
                "A signal processor or a hook changed hidden states in place that a reward is made of: let it change a "
                "copy."
            )
        tokens = self._waiting_tokens
        self._waiting, self._waiting_tokens = [], 0
        # One copy of all: every layer's states of all steps, layer by layer
        layers = torch.cat([state for layer in zip(*steps, strict=True) for state in layer])
        parts = layers.view(len(steps[0]), tokens, layers.shape[-1])
        logits = token_logits_by_part(parts, self._weight, self._bias)
        own = len(self.head.bias)
        rewards, gates = rewards_and_gates(logits[:, :own])
        numbers = torch.stack([gates * rewards, gates, rewards, torch.ones_like(gates), *logits[:, own:].T], dim=-1)
        # masked_fill, not a product: what the model makes of padding may be anything
        numbers = numbers.masked_fill(~torch.cat(active)[:, None], 0.0)
        # Not in place: whoever asks last may be outside of the inference mode that the sums were made in
        self._sums = self._sums.index_add(0, torch.cat(candidates), numbers)
        if self.keep_tokens:
            steps = numbers.split([len(step) for step in candidates])
            for step, its_candidates, its_active in zip(steps, candidates, active, strict=True):
                self._tokens.add(its_candidates, its_active, step[:, 2], step[:, 1], *step[:, 4:].T)

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        self._score_waiting()
        self._sums = self._sums[index]
        self._tokens.multiply(index)

    @property
    def rewards(self) -> torch.Tensor:
        """(candidates,) float32: R = sum_t g_t r_t / max(sum_t g_t, eps) over the tokens seen so far."""
        self._score_waiting()
        return self._sums[:, 0] / self._sums[:, 1].clamp_min(self.head.config.eps)

    @property
    def prefix_features(self) -> torch.Tensor:
        """(candidates, 3 or 4) float32: what pruning judges candidates by, see [`prefix_features`]."""
        self._score_waiting()
        return prefix_features(
            self._sums[:, 0],
            self._sums[:, 1],
            self._sums[:, 2],
            self._sums[:, 3].clamp_min(1),
            self.head.config.eps,
            self._sums[:, 4] if self.head.config.value else None,
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
        self._score_waiting()
        return self._tokens[name]


def _versions(parts: list[torch.Tensor]) -> list[int]:
    """How often each was changed in place; tensors of inference mode do not count it."""
    return [] if parts[0].is_inference() else [part._version for part in parts]
