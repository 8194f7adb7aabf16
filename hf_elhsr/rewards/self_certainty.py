"""RunningSelfCertainty: how far from uniform the language model's distributions are, a baseline for the head."""

import torch

from ..signals import SignalNeeds, StepSignal
from .processor import SignalProcessor


class RunningSelfCertainty(SignalProcessor):
    """Averages KL(U || p_t) over the sampled tokens, p_t the raw distribution of token t, U the uniform one over the
    vocabulary of V tokens (arXiv:2502.18581):

        KL(U || p) = -log V - 1/V sum_j log p_j

    Tokens that the model itself gives no probability, such as padding of the vocabulary, are left out of V.
    """

    needs = SignalNeeds(logits=True)

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._sum = torch.zeros(num_candidates, device=device, dtype=torch.float32)
        self._count = torch.zeros(num_candidates, device=device, dtype=torch.float32)

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        logits = signal.logits
        if logits is None:
            raise ValueError("This step has no logits: name them in the processor's `needs`.")
        mean = logits.mean(dim=-1)
        size = torch.full_like(mean, logits.shape[-1])
        if bool(torch.isneginf(mean).any()):
            possible = ~torch.isneginf(logits)
            size = possible.sum(dim=-1).to(mean)
            mean = logits.masked_fill(~possible, 0.0).sum(dim=-1) / size
        # -log V - mean(logits - logsumexp)
        certainty = signal.log_normalizer - mean - size.log()
        self._sum.index_add_(0, signal.candidates, certainty.masked_fill(~signal.active, 0.0))
        self._count.index_add_(0, signal.candidates, signal.active.to(self._count))

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        self._sum, self._count = self._sum[index], self._count[index]

    @property
    def mean(self) -> torch.Tensor:
        """(candidates,) float32: mean over sampled tokens, in nats, at least 0; 0 for those never sampled."""
        return self._sum / self._count.clamp_min(1)
