"""FeatureRecorder: the features h_t of every sampled token, taken while decoding."""

from typing import Any

import torch

from ..configuration_elhsr import ElhsrConfig
from ..rewards import SignalProcessor
from ..signals import StepSignal, head_features, head_needs


def recorded_dtype(config: ElhsrConfig, model: Any) -> torch.dtype:
    """What the features of this model are recorded in: what it computes them in, so that nothing is rounded.

    The decoding loop has logits in float32, whatever the product they come from was computed in; log-probabilities are
    made from these. A model without a floating output embedding, as a packed one, has float32 recorded.
    """
    if config.signal == "hidden_states":
        return model.dtype
    weight = getattr(model.get_output_embeddings(), "weight", None)
    computed = config.signal == "logits" and weight is not None and weight.dtype.is_floating_point
    return weight.dtype if computed and weight is not None else torch.float32


class FeatureRecorder(SignalProcessor):
    """Keeps h_t of all sampled tokens.

    Memory: (number of sampled tokens) * `config.num_features` numbers, until the next `begin`.

    Args:
        config: Of the head to be trained, which says what h_t is.
        every: Keep tokens every, 2 every, ... and the last, see [`plan_recording`].
        dtype: Of the kept features, see [`recorded_dtype`]. Default: as the decoding loop has them.
    """

    def __init__(self, config: ElhsrConfig, every: int = 1, dtype: torch.dtype | None = None):
        self.needs = head_needs(config)
        self._config = config
        self.every = every
        self._dtype = dtype

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._seen = torch.zeros(num_candidates, dtype=torch.long)
        # Which token is the last shows afterwards, so the latest of every candidate is kept until then
        self._latest = torch.empty(0, 0)
        self._features: list[torch.Tensor] = []
        self._candidates: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        features = head_features(self._config, input_ids, signal, "cpu")[signal.active.cpu()]
        features = features if self._dtype is None else features.to(self._dtype)
        candidates = signal.candidates[signal.active].cpu()
        if self.every > 1:
            self._seen[candidates] += 1
            if not len(self._latest):
                self._latest = torch.zeros(len(self._seen), features.shape[1], dtype=features.dtype)
            self._latest[candidates] = features
            due = self._seen[candidates] % self.every == 0
            features, candidates = features[due], candidates[due]
        self._features.append(features)
        self._candidates.append(candidates)

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        # Before the first token: there is nothing recorded that would have to be copied
        self._seen = self._seen[index.cpu()]

    def features(self) -> torch.Tensor:
        """(recorded tokens, `config.num_features`): candidate after candidate, each in the order of its tokens."""
        waiting = (self._seen % self.every).nonzero()[:, 0]
        candidates, features = self._candidates, self._features
        if len(waiting):
            candidates, features = [*candidates, waiting], [*features, self._latest[waiting]]
        order = torch.cat(candidates).argsort(stable=True)
        return torch.cat(features)[order]
