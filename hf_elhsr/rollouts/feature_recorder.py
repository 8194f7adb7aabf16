"""FeatureRecorder: the features h_t of every sampled token, taken while decoding."""

import torch

from ..configuration_elhsr import ElhsrConfig
from ..rewards import SignalProcessor
from ..signals import StepSignal, head_features, head_needs


class FeatureRecorder(SignalProcessor):
    """Keeps h_t of all sampled tokens, as the model gave it, so that nothing is rounded.

    Memory: (number of sampled tokens) * `config.num_features` numbers, until the next `begin`.

    Args:
        config: Of the head to be trained, which says what h_t is.
    """

    def __init__(self, config: ElhsrConfig):
        self.needs = head_needs(config)
        self._config = config

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._features: list[torch.Tensor] = []
        self._candidates: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        self._features.append(head_features(self._config, input_ids, signal, "cpu")[signal.active.cpu()])
        self._candidates.append(signal.candidates[signal.active].cpu())

    def features(self) -> torch.Tensor:
        """(tokens, `config.num_features`): candidate after candidate, each in the order of its tokens."""
        order = torch.cat(self._candidates).argsort(stable=True)
        return torch.cat(self._features)[order]
