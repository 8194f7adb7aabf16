"""RunningLogProbability: how likely the language model itself finds each candidate, a baseline for the head."""

import torch

from ..signals import SignalNeeds, StepSignal
from .processor import SignalProcessor
from .token_store import TokenStore


class RunningLogProbability(SignalProcessor):
    """Sums the log-probability of every sampled token under the raw distribution (temperature 1, nothing cut off).

    Args:
        keep_tokens: Also keep `token_log_probabilities`; otherwise nothing grows with the length.
    """

    needs = SignalNeeds(logits=True)

    def __init__(self, keep_tokens: bool = False):
        self.keep_tokens = keep_tokens
        self._tokens = TokenStore("log_probabilities")

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._sum = torch.zeros(num_candidates, device=device, dtype=torch.float32)
        self._count = torch.zeros(num_candidates, device=device, dtype=torch.float32)
        self._tokens.begin(num_candidates, device)

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        logits = signal.logits
        if logits is None:
            raise ValueError("This step has no logits: name them in the processor's `needs`.")
        chosen = logits.gather(-1, input_ids[:, -1:].to(logits.device)).squeeze(-1) - signal.log_normalizer
        chosen = chosen.masked_fill(~signal.active, 0.0)
        self._sum.index_add_(0, signal.candidates, chosen)
        self._count.index_add_(0, signal.candidates, signal.active.to(self._count))
        if self.keep_tokens:
            self._tokens.add(signal.candidates, signal.active, chosen)

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        self._sum, self._count = self._sum[index], self._count[index]
        self._tokens.multiply(index)

    @property
    def mean(self) -> torch.Tensor:
        """(candidates,) float32: mean log-probability per sampled token, in nats; 0 for those never sampled."""
        return self._sum / self._count.clamp_min(1)

    @property
    def token_log_probabilities(self) -> torch.Tensor:
        """(candidates, tokens) float32: of every sampled token, zero past a candidate's end. Needs `keep_tokens`."""
        if not self.keep_tokens:
            raise ValueError("Token log-probabilities were not kept: make it RunningLogProbability(keep_tokens=True).")
        return self._tokens["log_probabilities"]
