"""Pruning and adaptive n while decoding: the rules of `rewards/`, applied to the candidates of one call."""

from dataclasses import dataclass

import torch
from transformers.utils import logging

from ..decisions.adaptive import AdaptiveSampling
from ..decisions.calibration import Calibration, winner_calibration
from ..decisions.pruning import PruningSchedule, hopeless
from ..head.modeling_elhsr import ElhsrRewardHead
from ..rewards import RunningReward
from .arguments import check_min_confidence
from .loop import Pruner


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


logger = logging.get_logger(__name__)


def fitted_decisions(
    running_reward: RunningReward,
    n: int,
    k: int,
    prune: float | None,
    adaptive: float | None,
) -> tuple[tuple[Pruner, ...], AdaptiveWaves | None]:
    """Who is stopped early and who starts when, as the head was fitted to decide it.

    Raises:
        ValueError: The head was not fitted for it, both are asked for, or several winners are wanted.
    """
    head = running_reward.head
    asked = {"prune": (prune, head.config.pruning), "adaptive": (adaptive, head.config.adaptive)}
    for name, (regret, fitted) in asked.items():
        if regret is None:
            continue
        if k > 1:
            raise ValueError(f"{name} looks for the one best candidate: leave out {name}, or num_return_sequences={k}.")
        if fitted is not None and fitted["n"] != n:
            logger.warning_once(
                f"{name}={regret} was fitted with {fitted['n']} candidates; with {n} the accuracy given up may differ."
            )
    if prune is not None and adaptive is not None:
        raise ValueError("adaptive prunes candidates inside its waves already: pass one of prune and adaptive.")
    schedule = None if prune is None else PruningSchedule.from_config(head.config.pruning, prune)
    waves = None
    if adaptive is not None:
        sampling = AdaptiveSampling.from_config(head.config.adaptive, head.config.calibration, adaptive)
        schedule = sampling.schedule(head.config.pruning)
        waves = AdaptiveWaves(sampling, running_reward, n)
    hopeless = None if schedule is None else HopelessPruner(schedule, running_reward, n)
    return tuple(pruner for pruner in (hopeless, waves) if pruner is not None), waves


def winner_confidence(head: ElhsrRewardHead, min_confidence: float | None) -> Calibration | None:
    """What turns the winner's reward into a confidence, if the head has it."""
    if min_confidence is None:
        return None if head.config.calibration is None else winner_calibration(head.config.calibration)
    check_min_confidence(min_confidence)
    return winner_calibration(head.config.calibration)
