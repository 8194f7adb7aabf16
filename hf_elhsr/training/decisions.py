"""fit_decisions: calibration, pruning and adaptive n for a head, from prompts that it was not trained on."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
from transformers.utils import logging

from ..rewards.adaptive import AdaptiveSampling
from ..rewards.calibration import Calibration
from ..rewards.calibration_fit import fit_calibration
from ..rewards.logistic import sigmoid
from ..rewards.pruning import PruningSchedule
from ..rewards.regrets import REGRETS
from ..rollouts.pruning_fit import PRICES, cross_fitted, cross_fitted_replays, fit_pruning
from ..rollouts.replay import Replay, replay_adaptive, replay_exact
from ..rollouts.scored_rollouts import ScoredRollouts

logger = logging.get_logger(__name__)

#: The thresholds on P(right) that are tried for adaptive n.
THRESHOLDS = tuple(float(f"{threshold:.3f}") for threshold in np.linspace(0.98, 0.02, 49))
#: The prices of pruning inside waves that are tried for adaptive n.
WAVE_PRICES = (0.0, 0.0003, *PRICES[:24:3])
# Random orders that a fit averages over
_FITTING_ORDERS = 2
#: Waves that n candidates come in.
_WAVES = 4
# Of the standard normal distribution: the upper end of a one-sided 95 % interval
_ONE_SIDED = 1.645


def fit_decisions(scored: ScoredRollouts, with_pruning: bool = True) -> dict[str, dict[str, Any] | None]:
    """The configuration fields `calibration`, `pruning` and `adaptive` for a head.

    A setting is allowed for a regret where the regret that it shows on these prompts, judged by [`regret`], is at most
    that. Pruning is replayed on prompts that its schedule was not fitted on. The setting stored is the one that saves
    most among those before the first refusal.

    Args:
        scored: Rollouts of held-out prompts, with the head's token rewards and gates.
        with_pruning: Whether to fit a pruning schedule, which needs every token.

    Returns:
        The fields, as [`ElhsrConfig`] holds them; None for what cannot be fitted, with a warning that says why.
    """
    try:
        calibration = _calibration(scored)
    except ValueError as error:
        logger.warning(f"The head gets no calibration, pruning and adaptive n. {error}")
        return {"calibration": None, "pruning": None, "adaptive": None}
    winner = Calibration(**calibration["winner"])
    try:
        pruning = _pruning(scored, winner) if with_pruning else None
    except ValueError as error:
        logger.warning(f"The head gets no pruning schedule. {error}")
        pruning = None
    return {"calibration": calibration, "pruning": pruning, "adaptive": _adaptive(scored, winner, pruning is not None)}


def regret(exact: Replay, replay: Replay, winner: Calibration) -> float:
    """How much accuracy a replay gives up against exact best-of-n, judged conservatively.

    There are two estimates. The loss by labels is unbiased but coarse: few winners change, and many of those are wrong
    before and after. The loss in calibrated P(right) from exact to actual winners has no such noise, and errs on the
    safe side, since a reward that beats another good one is less to be trusted than one that stands alone. Of each, the
    upper end of a one-sided 95 % interval over prompts is a bound; the lower bound of the two counts.
    """
    by_labels = exact.right - replay.right
    by_calibration = _probability(exact.winner_rewards, winner) - _average(_probability(replay.winner_rewards, winner))
    bounds = [lost.mean() + _ONE_SIDED * lost.std(ddof=1) / len(lost) ** 0.5 for lost in (by_labels, by_calibration)]
    return float(max(by_labels.mean(), min(bounds)))


def _calibration(scored: ScoredRollouts) -> dict[str, Any]:
    exact = replay_exact(scored)
    one = fit_calibration(scored.rewards.reshape(-1), scored.labels.reshape(-1))
    winner = fit_calibration(exact.winner_rewards, exact.right.astype(bool))
    return {**asdict(one), "winner": asdict(winner), **_fitted_on(scored)}


def _pruning(scored: ScoredRollouts, winner: Calibration) -> dict[str, Any]:
    exact = replay_exact(scored)
    regrets = [regret(exact, replay, winner) for replay in cross_fitted_replays(scored)]
    fields = asdict(fit_pruning(scored))
    del fields["price"]
    prices = {str(wanted): (0.0, *PRICES)[_allowed(regrets, wanted)] for wanted in REGRETS}
    return {**fields, "prices": prices, **_fitted_on(scored)}


def _adaptive(scored: ScoredRollouts, winner: Calibration, with_pruning: bool) -> dict[str, Any]:
    """Per wanted regret, the threshold and the price of pruning inside waves that together sample least."""
    exact = replay_exact(scored)
    wave = max(1, scored.lengths.shape[1] // _WAVES)
    samplings = [AdaptiveSampling(wave, threshold, winner) for threshold in (1.0, *THRESHOLDS)]
    prices = WAVE_PRICES if with_pruning else (0.0,)

    def at_every_setting(inside: ScoredRollouts, schedule: PruningSchedule | None) -> list[Replay]:
        schedules = [None if schedule is None else replace(schedule, price=price) for price in prices]
        swept = [replay_adaptive(inside, samplings, priced, orders=_FITTING_ORDERS) for priced in schedules]
        return [replay for replays in swept for replay in replays]

    replays = cross_fitted(scored, at_every_setting) if with_pruning else at_every_setting(scored, None)
    best = {str(wanted): (float(exact.tokens.sum()), 1.0, 0.0) for wanted in REGRETS}
    for number, price in enumerate(prices):
        own = replays[number * len(samplings) : (number + 1) * len(samplings)]
        regrets = [regret(exact, replay, winner) for replay in own]
        tried = [(float(r.tokens.sum()), s.threshold, price) for r, s in zip(own, samplings, strict=True)]
        for wanted in REGRETS:
            best[str(wanted)] = min([best[str(wanted)], *tried[: _allowed(regrets, wanted)]])
    return {
        "wave": wave,
        "thresholds": {wanted: threshold for wanted, (_, threshold, _) in best.items()},
        "prices": {wanted: price for wanted, (_, _, price) in best.items()},
        **_fitted_on(scored),
    }


def _allowed(regrets: list[float], wanted: float) -> int:
    """How many settings, which save more and more, come before the first that gives up too much."""
    return next((place for place, given_up in enumerate(regrets) if given_up > wanted), len(regrets))


def _fitted_on(scored: ScoredRollouts) -> dict[str, int]:
    return {"n": scored.lengths.shape[1], "prompts": len(scored.lengths)}


def _probability(rewards: np.ndarray, calibration: Calibration) -> np.ndarray:
    return sigmoid(calibration.slope * rewards + calibration.offset)


def _average(values: np.ndarray) -> np.ndarray:
    return values if values.ndim == 1 else values.mean(axis=1)
