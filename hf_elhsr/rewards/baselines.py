"""Baselines for the head: the language model's log-probability, its self-certainty, and a probe of the last token."""

import hashlib
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ..head.base_model import unwrap_language_model
from ..head.signals import SignalNeeds, StepSignal
from .processor import SignalProcessor, TokenStore


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
        logits = signal.raw_logits
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
        logits = signal.raw_logits
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


@dataclass(frozen=True)
class LastTokenProbe:
    """R = w h_T + b: the hidden state of one layer at the last sampled token, without a gate or a mean over tokens.

    Args:
        layer: Index into `hidden_states`.
        weight: (d,) float32.
        bias: Scalar.
    """

    layer: int
    weight: torch.Tensor
    bias: float

    def check_fits(self, model: PreTrainedModel) -> None:
        """Refuse a language model whose layers the probe cannot read.

        Raises:
            ValueError: Another width, or a layer that the model does not have.
        """
        config = unwrap_language_model(model).config.get_text_config(decoder=True)
        width, last = config.hidden_size, config.num_hidden_layers
        if self.weight.shape != (width,) or not 0 <= self.layer <= last:
            raise ValueError(
                f"This probe reads layer {self.layer} with weights of shape {tuple(self.weight.shape)}, and the model "
                f"has layers 0 to {last} of width {width}: train it on rollouts of this model."
            )

    @property
    def sha256(self) -> str:
        """SHA-256 of everything that its rewards depend on."""
        numbers = self.weight.detach().cpu().float().numpy().tobytes()
        return hashlib.sha256(f"{self.layer} {self.bias!r} ".encode() + numbers).hexdigest()


class RunningLastTokenProbe(SignalProcessor):
    """The probe's reward for every candidate's last token so far."""

    def __init__(self, probe: LastTokenProbe):
        self.needs = SignalNeeds(layers=frozenset([probe.layer]))
        self.probe = probe

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._weight = self.probe.weight.to(device, torch.float32)
        self._rewards = torch.zeros(num_candidates, device=device, dtype=torch.float32)

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        rewards = signal.features([self.probe.layer], self._weight.device).float() @ self._weight + self.probe.bias
        self._rewards[signal.candidates[signal.active]] = rewards[signal.active]

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        self._rewards = self._rewards[index]

    @property
    def rewards(self) -> torch.Tensor:
        """(candidates,) float32: R."""
        return self._rewards
