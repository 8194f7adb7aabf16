"""RunningLogProbability: how likely the language model itself finds each candidate, a baseline for the head."""

import torch

from ..signals import SignalNeeds, StepSignal
from .processor import SignalProcessor


class RunningLogProbability(SignalProcessor):
    """Sums the log-probability of every sampled token under the raw distribution (temperature 1, nothing cut off)."""

    needs = SignalNeeds(logits=True)

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._sum = torch.zeros(num_candidates, device=device, dtype=torch.float32)
        self._count = torch.zeros(num_candidates, device=device, dtype=torch.float32)

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        logits = signal.logits
        if logits is None:
            raise ValueError("This step has no logits: name them in the processor's `needs`.")
        chosen = logits.gather(-1, input_ids[:, -1:].to(logits.device)).squeeze(-1) - logits.logsumexp(dim=-1)
        self._sum.index_add_(0, signal.candidates, chosen.masked_fill(~signal.active, 0.0))
        self._count.index_add_(0, signal.candidates, signal.active.to(self._count))

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        self._sum, self._count = self._sum[index], self._count[index]

    @property
    def mean(self) -> torch.Tensor:
        """(candidates,) float32: mean log-probability per sampled token, in nats."""
        return self._sum / self._count
