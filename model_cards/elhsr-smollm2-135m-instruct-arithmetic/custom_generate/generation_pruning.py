# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/pruning.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""Pruning and adaptive n while decoding: the rules of `rewards/`, applied to the candidates of one call."""

from dataclasses import dataclass

import torch

from .rewards_running_reward import RunningReward
from .rewards_adaptive import AdaptiveSampling
from .rewards_pruning import PruningSchedule, hopeless


@dataclass(frozen=True)
class HopelessPruner:
    """Stops candidates that are all but sure to lose, see [`hopeless`].

    Args:
        schedule: When to look, and what counts as hopeless.
        running_reward: The processor that follows the candidates.
        n: Candidates per prompt.
    """

    schedule: PruningSchedule
    running_reward: RunningReward
    n: int

    def __call__(
        self, candidates: torch.Tensor, unfinished: torch.Tensor, lengths: torch.Tensor, pruned: torch.Tensor
    ) -> torch.Tensor:
        """(rows,) bool, see [`Pruner`]."""
        if not bool((lengths[candidates] % self.schedule.interval == 0).any()):
            return torch.zeros_like(unfinished)
        running = torch.zeros_like(pruned)
        running[candidates] = unfinished
        by_prompt = (-1, self.n)
        dropped = hopeless(
            self.schedule,
            self.running_reward.prefix_features.unflatten(0, by_prompt),
            running.view(by_prompt),
            (pruned | (lengths == 0)).view(by_prompt),
            lengths.view(by_prompt),
        )
        return dropped.flatten()[candidates]


@dataclass(frozen=True)
class AdaptiveWaves:
    """Lets candidates come in waves, and stops a prompt's sampling once a finished candidate is trusted.

    Args:
        sampling: The size of the waves and when a candidate is trusted.
        running_reward: The processor that follows the candidates.
        n: Candidates per prompt.
    """

    sampling: AdaptiveSampling
    running_reward: RunningReward
    n: int

    def wave_sizes(self) -> list[int]:
        """How many candidates of a prompt each wave has; n together."""
        ends = self.sampling.wave_ends(self.n)
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]

    def wanting(self, lengths: torch.Tensor, pruned: torch.Tensor) -> torch.Tensor:
        """(batch,) bool, true for prompts that want another wave."""
        return ~self._enough((lengths > 0) & ~pruned)

    def __call__(
        self, candidates: torch.Tensor, unfinished: torch.Tensor, lengths: torch.Tensor, pruned: torch.Tensor
    ) -> torch.Tensor:
        """(rows,) bool, see [`Pruner`]: what still runs for a prompt that has a trusted candidate."""
        if bool(unfinished.all()):
            # Nobody has ended with this token
            return torch.zeros_like(unfinished)
        finished = (lengths > 0) & ~pruned
        finished[candidates] &= ~unfinished
        return unfinished & self._enough(finished)[candidates // self.n]

    def _enough(self, finished: torch.Tensor) -> torch.Tensor:
        by_prompt = (-1, self.n)
        return self.sampling.enough(self.running_reward.rewards.view(by_prompt), finished.view(by_prompt))
