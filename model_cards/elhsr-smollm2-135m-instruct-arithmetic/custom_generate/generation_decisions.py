# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/decisions.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""Decisions that a head was fitted for: pruning, adaptive n, and how far the winner is trusted."""

from transformers.utils import logging

from .modeling_elhsr import ElhsrRewardHead
from .rewards_running_reward import RunningReward
from .rewards_adaptive import AdaptiveSampling
from .rewards_calibration import Calibration, winner_calibration
from .rewards_pruning import PruningSchedule
from .generation_pruning import AdaptiveWaves, HopelessPruner
from .generation_request import Pruner
from .generation_validation import check_min_confidence

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
