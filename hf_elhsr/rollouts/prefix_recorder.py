"""PrefixRecorder: the mean of the features of some prefixes of every candidate, taken while decoding."""

import torch

from ..modeling_elhsr import ElhsrRewardHead
from ..rewards import SignalProcessor
from ..signals import StepSignal, head_features, head_needs

#: Prefixes that V_t learns from have 8, 16, 24, ... tokens, and are shorter than their completion.
PREFIX_INTERVAL = 8


class PrefixRecorder(SignalProcessor):
    """Keeps (h_1 + ... + h_t) / t, from which V_t is computed, for every second of the prefixes of 8, 16, ... tokens.

    Neighbouring prefixes are much alike, so half of them teach about as much. Candidates of even number keep those of
    8, 24, ... tokens, the others those of 16, 32, ...

    Args:
        head: Whose h_t it is.
    """

    def __init__(self, head: ElhsrRewardHead):
        self.needs = head_needs(head.config)
        self._config = head.config
        self._width = head.config.num_features

    def begin(self, num_candidates: int, device: torch.device) -> None:
        self._sum = torch.zeros(num_candidates, self._width, device=device)
        self._seen = torch.zeros(num_candidates, dtype=torch.long, device=device)
        self._means: list[torch.Tensor] = []
        self._candidates: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, signal: StepSignal) -> None:
        candidates = signal.candidates[signal.active]
        features = head_features(self._config, input_ids, signal, self._seen.device)[signal.active].float()
        # Before the sums take in this token: it shows that the prefix is shorter than the completion
        seen = self._seen[candidates]
        due = (seen > 0) & (seen % (2 * PREFIX_INTERVAL) == PREFIX_INTERVAL * (1 - candidates % 2))
        if bool(due.any()):
            self._means.append((self._sum[candidates[due]] / seen[due, None]).cpu())
            self._candidates.append(candidates[due].cpu())
        self._sum.index_add_(0, candidates, features)
        self._seen[candidates] += 1

    def candidates_multiplied(self, index: torch.Tensor) -> None:
        # Before the first token: there is nothing recorded that would have to be copied
        self._sum, self._seen = self._sum[index], self._seen[index]

    def means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(prefixes, L * d) float32, candidate after candidate, and (prefixes,) long, the candidate of each."""
        if not self._means:
            return torch.zeros(0, self._width), torch.zeros(0, dtype=torch.long)
        candidates = torch.cat(self._candidates)
        order = candidates.argsort(stable=True)
        return torch.cat(self._means)[order], candidates[order]
