"""Stopping early: the rules of `decisions/`, applied to the candidates of one call.

[`STOPPING_RULES`] names the arguments of `generate` that stop candidates, each with the tolerance as its value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from transformers.utils import logging

from ..decisions.adaptive import AdaptiveRule
from ..decisions.calibration import Calibration, Line
from ..decisions.pruning import PruningRule
from ..head.modeling_elhsr import ElhsrRewardHead
from ..rewards.running_reward import RunningReward
from .arguments import check_min_confidence
from .loop import Pruner, Waves

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Stopping:
    """What decides about candidates while they are sampled.

    Args:
        pruners: They are asked after every step which candidates to stop.
        waves: How many candidates start together; None for all of them.
    """

    pruners: tuple[Pruner, ...] = ()
    waves: Waves | None = None


@dataclass(frozen=True)
class HopelessPruner:
    """Stops candidates that are almost sure to lose, see [`PruningRule.hopeless`].

    Args:
        rule: When candidates are checked, and which are hopeless.
        running_reward: The processor that follows the candidates.
        n: Candidates per prompt.
    """

    rule: PruningRule
    running_reward: RunningReward
    n: int

    def __call__(
        self, candidates: torch.Tensor, unfinished: torch.Tensor, lengths: torch.Tensor, pruned: torch.Tensor
    ) -> torch.Tensor:
        """(rows,) bool, see [`Pruner`]."""
        if not bool((lengths[candidates] % self.rule.interval == 0).any()):
            return torch.zeros_like(unfinished)
        running = torch.zeros_like(pruned)
        running[candidates] = unfinished
        by_prompt = (-1, self.n)
        dropped = self.rule.hopeless(
            self.running_reward.prefix_features.unflatten(0, by_prompt),
            running.view(by_prompt),
            (pruned | (lengths == 0)).view(by_prompt),
            lengths.view(by_prompt),
        )
        return dropped.flatten()[candidates]


@dataclass(frozen=True)
class AdaptiveWaves:
    """Starts candidates in waves, and stops a prompt's sampling once a finished candidate is trusted.

    Args:
        rule: The size of the waves and when a candidate is trusted.
        running_reward: The processor that follows the candidates.
        n: Candidates per prompt.
    """

    rule: AdaptiveRule
    running_reward: RunningReward
    n: int

    def wave_sizes(self) -> list[int]:
        """How many candidates of a prompt each wave has; they add up to n."""
        ends = self.rule.wave_ends(self.n)
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]

    def wanting(self, lengths: torch.Tensor, pruned: torch.Tensor) -> torch.Tensor:
        """(batch,) bool, true for prompts that need another wave."""
        return ~self._enough((lengths > 0) & ~pruned)

    def __call__(
        self, candidates: torch.Tensor, unfinished: torch.Tensor, lengths: torch.Tensor, pruned: torch.Tensor
    ) -> torch.Tensor:
        """(rows,) bool, see [`Pruner`]: true for running candidates of prompts that have a trusted one."""
        if bool(unfinished.all()):
            # No candidate has ended with this token
            return torch.zeros_like(unfinished)
        finished = (lengths > 0) & ~pruned
        finished[candidates] &= ~unfinished
        return unfinished & self._enough(finished)[candidates // self.n]

    def _enough(self, finished: torch.Tensor) -> torch.Tensor:
        by_prompt = (-1, self.n)
        return self.rule.enough(self.running_reward.rewards.view(by_prompt), finished.view(by_prompt))


def prune(running_reward: RunningReward, n: int, tolerance: float) -> Stopping:
    """Stop hopeless candidates early, by the head's `config.pruning`."""
    fitted = running_reward.head.config.fitted("pruning")
    rule = fitted.rule(tolerance)
    _warn_of_another_n("prune", tolerance, fitted.n, n)
    return Stopping((HopelessPruner(rule, running_reward, n),))


def adaptive(running_reward: RunningReward, n: int, tolerance: float) -> Stopping:
    """Sample waves until a candidate is trusted and prune hopeless ones in them, by the head's `config.adaptive`."""
    config = running_reward.head.config
    fitted = config.fitted("adaptive")
    rule = fitted.rule(tolerance, config.fitted("calibration").winner)
    _warn_of_another_n("adaptive", tolerance, fitted.n, n)
    waves = AdaptiveWaves(rule, running_reward, n)
    pruning = rule.pruning_rule(config.pruning)
    hopeless = () if pruning is None else (HopelessPruner(pruning, running_reward, n),)
    return Stopping((*hopeless, waves), waves)


#: By the argument of `generate` that asks for it: from the head's processor, n and the tolerance to a [`Stopping`].
STOPPING_RULES: dict[str, Callable[[RunningReward, int, float], Stopping]] = {"prune": prune, "adaptive": adaptive}


def stopping_for(running_reward: RunningReward, n: int, k: int, tolerances: Mapping[str, float | None]) -> Stopping:
    """The rule that stops candidates, as the head was fitted for it.

    Args:
        n, k: Candidates and winners per prompt.
        tolerances: By the names of [`STOPPING_RULES`]; None for rules that were not asked for.

    Raises:
        ValueError: The head was not fitted for it, several rules are asked for, or several winners are wanted.
    """
    asked = {name: tolerance for name, tolerance in tolerances.items() if tolerance is not None}
    for name in asked:
        if k > 1:
            raise ValueError(f"{name} looks for a single winner: leave out {name}, or num_return_sequences={k}.")
    if {"prune", "adaptive"} <= asked.keys():
        raise ValueError("adaptive already prunes candidates within its waves: pass only one of prune and adaptive.")
    if len(asked) > 1:
        raise ValueError(f"{' and '.join(asked)} each decide which candidates stop: pass only one of them.")
    for name, tolerance in asked.items():
        return STOPPING_RULES[name](running_reward, n, tolerance)
    return Stopping()


def winner_confidence(head: ElhsrRewardHead, min_confidence: float | None) -> Line | None:
    """The calibration that turns the winner's reward into a confidence; None if the head has none.

    Raises:
        ValueError: A confidence is asked for, but the head has no calibration.
    """
    if min_confidence is not None:
        check_min_confidence(min_confidence)
        return head.config.fitted(Calibration.name).winner  # type: ignore[no-any-return]
    calibration = head.config.calibration
    return None if calibration is None else calibration.winner  # type: ignore[no-any-return]


def _warn_of_another_n(name: str, tolerance: float, fitted_n: int, n: int) -> None:
    if fitted_n != n:
        logger.warning_once(
            f"{name}={tolerance} was fitted with {fitted_n} candidates; with {n} the accuracy loss may differ."
        )
