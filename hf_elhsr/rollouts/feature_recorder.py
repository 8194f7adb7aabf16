"""FeatureRecorder: the features h_t of every sampled token, taken while decoding."""

import torch

from ..rewards import SignalProcessor
from ..signals import SignalNeeds, StepSignal


class FeatureRecorder(SignalProcessor):
    """Keeps h_t of all sampled tokens, in the language model's own dtype, so that nothing is rounded.

    Memory: (number of sampled tokens) * L * d numbers, until the next `begin`.

    Args:
        layers: Which hidden states h_t is made of, ascending.
    """

    def __init__(self, layers: list[int]):
        self.layers = layers
        self.needs = SignalNeeds(layers=frozenset(layers))

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._features: list[torch.Tensor] = []
        self._candidates: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        self._features.append(signal.features(self.layers, "cpu")[signal.active.cpu()])
        self._candidates.append(signal.candidates[signal.active].cpu())

    def features(self) -> torch.Tensor:
        """(tokens, L * d): candidate after candidate, each in the order of its tokens."""
        order = torch.cat(self._candidates).argsort(stable=True)
        return torch.cat(self._features)[order]
