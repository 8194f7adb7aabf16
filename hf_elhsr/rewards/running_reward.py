"""RunningReward: a head's reward of every candidate while it is written, from running sums."""

import torch

from ..head.modeling_elhsr import ElhsrRewardHead
from ..head.signals import StepSignal
from .processor import SignalProcessor, TokenStore

# Steps are buffered up to so many tokens, or so many numbers: scoring a single step spends more time on calls and cold
# caches than on arithmetic, and too many steps do not stay cached while they are scored
_TOKENS_AT_ONCE = 256
_NUMBERS_AT_ONCE = 2**20


class RunningReward(SignalProcessor):
    """Keeps sum_t g_t r_t and sum_t g_t per candidate, so that R is known after every token.

    For pruning, the sums of r_t and v_t and the number of tokens are kept as well, see [`Aggregation.summands`].

    The features of a few steps are buffered and scored together, or when rewards are asked for; the timing can change
    the last bits of a reward. Nothing grows with the length of the completion, unless `keep_tokens` asks for every r_t
    and g_t.

    Args:
        head: The reward head. It is read, never moved or changed.
        keep_tokens: Also keep `token_rewards`, `token_gates` and, for heads with `config.value`, `token_values`.
    """

    def __init__(self, head: ElhsrRewardHead, keep_tokens: bool = False):
        self.head = head
        self.keep_tokens = keep_tokens
        self._reads = head.config.reads
        self.needs = self._reads.needs
        self._aggregation = head.aggregation
        self._tokens = TokenStore("rewards", "gates", *(["values"] if head.config.value else []))

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._head = self.head.frozen(device)
        self._sums = self._aggregation.zeros(num_candidates, device)
        self._tokens.begin(num_candidates, device)
        self._waiting: list[tuple[list[torch.Tensor], list[int], torch.Tensor, torch.Tensor]] = []
        self._waiting_tokens = 0

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        parts = self._reads.parts(input_ids, signal, self._head.device)
        if self._head.device.type != "cpu":
            # On an accelerator, a compiled next step may overwrite these hidden states
            parts = [torch.cat(parts, dim=-1)]
        self._waiting.append((parts, _versions(parts), signal.candidates, signal.active))
        self._waiting_tokens += len(signal.candidates)
        if self._waiting_tokens >= min(_TOKENS_AT_ONCE, _NUMBERS_AT_ONCE // self._head.num_features):
            self._score_waiting()

    def _score_waiting(self) -> None:
        if not self._waiting:
            return
        steps, versions, candidates, active = zip(*self._waiting, strict=True)
        if any(_versions(parts) != before for parts, before in zip(steps, versions, strict=True)):
            raise ValueError(
                "A signal processor or a hook changed hidden states in place before the reward was computed from them: "
                "let it change a copy."
            )
        tokens = self._waiting_tokens
        self._waiting, self._waiting_tokens = [], 0
        # A single copy: every layer's states of all steps, layer by layer
        layers = torch.cat([state for layer in zip(*steps, strict=True) for state in layer])
        parts = layers.view(len(steps[0]), tokens, layers.shape[-1])
        outputs = self._head.by_part(parts)
        numbers = self._aggregation.summands(outputs)
        # masked_fill, not a product: the model's output for padding may be NaN
        numbers = numbers.masked_fill(~torch.cat(active)[:, None], 0.0)
        # Not in place: the last caller may be outside the inference mode that the sums were made in
        self._sums = self._sums.index_add(0, torch.cat(candidates), numbers)
        if self.keep_tokens:
            kept = torch.stack([kind for kind in (outputs.rewards, outputs.gates, outputs.values) if kind is not None])
            by_step = kept.split([len(step) for step in candidates], dim=1)
            for step, its_candidates, its_active in zip(by_step, candidates, active, strict=True):
                self._tokens.add(its_candidates, its_active, *step)

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        self._score_waiting()
        self._sums = self._sums[index]
        self._tokens.multiply(index)

    @property
    def rewards(self) -> torch.Tensor:
        """(candidates,) float32: R = sum_t g_t r_t / max(sum_t g_t, eps) over the tokens seen so far."""
        self._score_waiting()
        return self._aggregation.rewards(self._sums)

    @property
    def prefix_features(self) -> torch.Tensor:
        """(candidates, 3 or 4) float32: what pruning rules read, see `Aggregation.prefix_features`."""
        self._score_waiting()
        return self._aggregation.prefix_features(self._sums)

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
    """How often each tensor was changed in place; empty in inference mode, where tensors do not count that."""
    return [] if parts[0].is_inference() else [part._version for part in parts]
