"""LastTokenProbe: a linear probe of one layer at the last token, the simplest baseline that reads hidden states."""

import hashlib
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ..configuration_elhsr import unwrap_language_model
from ..signals import SignalNeeds, StepSignal
from .processor import SignalProcessor


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
        """Of everything that decides its rewards."""
        numbers = self.weight.detach().cpu().float().numpy().tobytes()
        return hashlib.sha256(f"{self.layer} {self.bias!r} ".encode() + numbers).hexdigest()


class RunningLastTokenProbe(SignalProcessor):
    """What a probe says of every candidate's last token so far."""

    def __init__(self, probe: LastTokenProbe):
        self.needs = SignalNeeds(layers=frozenset([probe.layer]))
        self.probe = probe

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._weight = self.probe.weight.to(device, torch.float32)
        self._rewards = torch.zeros(num_candidates, device=device, dtype=torch.float32)

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        said = signal.features([self.probe.layer], self._weight.device).float() @ self._weight + self.probe.bias
        self._rewards[signal.candidates[signal.active]] = said[signal.active]

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        self._rewards = self._rewards[index]

    @property
    def rewards(self) -> torch.Tensor:
        """(candidates,) float32: R."""
        return self._rewards
