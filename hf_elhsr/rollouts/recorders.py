"""Signal processors that record features while decoding: of every token, pooled over tokens, and of prefixes."""

import torch

from ..head.configuration_elhsr import ElhsrConfig
from ..head.modeling_elhsr import ElhsrRewardHead
from ..head.signals import StepSignal
from ..rewards import SignalProcessor


class FeatureRecorder(SignalProcessor):
    """Keeps h_t of all sampled tokens.

    Memory: (number of sampled tokens) * `config.num_features` numbers, until the next `begin`.

    Args:
        config: The configuration of the head to be trained, which defines h_t.
        every: Keep tokens every, 2 every, ... and the last, see [`plan_recording`].
        dtype: The dtype of the kept features, see `SignalReader.recorded_dtype`. Default: that of the decoding loop.
    """

    def __init__(self, config: ElhsrConfig, every: int = 1, dtype: torch.dtype | None = None):
        self._reads = config.reads
        self.needs = self._reads.needs
        self.every = every
        self._dtype = dtype

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._seen = torch.zeros(num_candidates, dtype=torch.long)
        # The last token is known only afterwards, so the latest of every candidate is kept until then
        self._latest = torch.empty(0, 0)
        self._features: list[torch.Tensor] = []
        self._candidates: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        features = self._reads.features(input_ids, signal, "cpu")[signal.active.cpu()]
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
        # Before the first token, so nothing was recorded that would have to be copied
        self._seen = self._seen[index.cpu()]

    def features(self) -> torch.Tensor:
        """(recorded tokens, `config.num_features`): candidate after candidate, each in the order of its tokens."""
        waiting = (self._seen % self.every).nonzero()[:, 0]
        candidates, features = self._candidates, self._features
        if len(waiting):
            candidates, features = [*candidates, waiting], [*features, self._latest[waiting]]
        order = torch.cat(candidates).argsort(stable=True)
        return torch.cat(features)[order]


class PooledRecorder(SignalProcessor):
    """Keeps sum_t g_t h_t and sum_t g_t per candidate, with a head's gates.

    With these gates, R = W_r (sum_t g_t h_t / sum_t g_t) + b_r: the pooled features are enough to train the row of R,
    and take L * d numbers per candidate, however long it is.

    Args:
        head: Its gates weight the tokens. It is read, never moved or changed.
    """

    def __init__(self, head: ElhsrRewardHead):
        self._reads = head.config.reads
        self.needs = self._reads.needs
        self._head = head

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._frozen = self._head.frozen(device)
        self._weighted_sum = torch.zeros(num_candidates, self._reads.num_features, device=device)
        self._gate_sum = torch.zeros(num_candidates, device=device)

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        features = self._reads.features(input_ids, signal, self._frozen.device)[signal.active].float()
        candidates = signal.candidates[signal.active]
        gates = self._frozen(features).gates
        self._weighted_sum.index_add_(0, candidates, features.mul_(gates[:, None]))
        self._gate_sum.index_add_(0, candidates, gates)

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        self._weighted_sum = self._weighted_sum[index]
        self._gate_sum = self._gate_sum[index]

    def features(self) -> torch.Tensor:
        """(candidates, L * d) float32: sum_t g_t h_t / max(sum_t g_t, eps)."""
        return self._head.aggregation.mean(self._weighted_sum, self._gate_sum[:, None])


#: V_t is trained on prefixes of 8, 16, 24, ... tokens that are shorter than their completion.
PREFIX_INTERVAL = 8


class PrefixRecorder(SignalProcessor):
    """Keeps (h_1 + ... + h_t) / t, from which V_t is computed, for every second of the prefixes of 8, 16, ... tokens.

    Neighbouring prefixes are similar, so training on half of them loses little. Even-numbered candidates keep those of
    8, 24, ... tokens, the others those of 16, 32, ...

    Args:
        head: Its configuration defines h_t.
    """

    def __init__(self, head: ElhsrRewardHead):
        self._reads = head.config.reads
        self.needs = self._reads.needs
        self._width = self._reads.num_features

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._sum = torch.zeros(num_candidates, self._width, device=device)
        self._seen = torch.zeros(num_candidates, dtype=torch.long, device=device)
        self._means: list[torch.Tensor] = []
        self._candidates: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        candidates = signal.candidates[signal.active]
        features = self._reads.features(input_ids, signal, self._seen.device)[signal.active].float()
        # Before this token is added, since its existence shows that the prefix is shorter than the completion
        seen = self._seen[candidates]
        due = (seen > 0) & (seen % (2 * PREFIX_INTERVAL) == PREFIX_INTERVAL * (1 - candidates % 2))
        if bool(due.any()):
            self._means.append((self._sum[candidates[due]] / seen[due, None]).cpu())
            self._candidates.append(candidates[due].cpu())
        self._sum.index_add_(0, candidates, features)
        self._seen[candidates] += 1

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        # Before the first token, so nothing was recorded that would have to be copied
        self._sum, self._seen = self._sum[index], self._seen[index]

    def means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(prefixes, L * d) float32, candidate after candidate, and (prefixes,) long, the candidate of each."""
        if not self._means:
            return torch.zeros(0, self._width), torch.zeros(0, dtype=torch.long)
        candidates = torch.cat(self._candidates)
        order = candidates.argsort(stable=True)
        return torch.cat(self._means)[order], candidates[order]
