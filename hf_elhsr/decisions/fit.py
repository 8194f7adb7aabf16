"""fit_calibration: the calibration of a head, from held-out rollouts."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from .adaptive import AdaptiveSampling
from .calibration import Calibration
from .logistic import fit_logistic, sigmoid
from .pruning import PruningSchedule
from .replay import Judge, Replay, replay_adaptive, replay_exact, replay_pruning
from .scored_rollouts import ScoredRollouts
from .selection import LearnedCombination
from .tolerance import TOLERANCES


def fit_calibration(rewards: np.ndarray, labels: np.ndarray) -> Calibration:
    """The maximum-likelihood calibration, with Platt's targets.

    The targets are (right + 1) / (right + 2) and 1 / (wrong + 2) in place of 1 and 0 (Platt 1999): the slope stays
    finite where a threshold parts right from wrong, and with many rollouts nothing changes.

    Args:
        rewards: (rollouts,) float64, of prompts that the head was not trained on.
        labels: (rollouts,) bool.

    Raises:
        ValueError: Labels all of one class, rewards that are not finite, or a slope that is not above zero: higher
            rewards are not right more often, so the head has learned nothing that a calibration could bring out.
    """
    right = int(labels.sum())
    wrong = len(labels) - right
    if not right or not wrong:
        raise ValueError(f"Expected right and wrong rollouts, got {right} and {wrong}: use more prompts.")
    targets = np.where(labels, (right + 1) / (right + 2), 1 / (wrong + 2))
    offset, slope = fit_logistic(rewards.astype(np.float64)[:, None], targets)
    if not slope > 0:
        raise ValueError(
            f"Expected higher rewards to be right more often, got a slope of {slope:.3g}: train on more prompts."
        )
    return Calibration(float(slope), float(offset))


def fit_combination(rewards: np.ndarray | torch.Tensor, labels: np.ndarray | torch.Tensor) -> LearnedCombination:
    """Logistic regression of the label on the sources' rewards, over all candidates of all prompts.

    Fit it on prompts that no source was trained on, else the one that learned them by heart gets all the weight.

    Args:
        rewards: (prompts, n, sources) float, an array or a tensor.
        labels: (prompts, n) bool, likewise.

    Raises:
        ValueError: Shapes that do not belong together, rewards that are not finite, or labels all of one class.
    """
    rewards, labels = (np.asarray(x.cpu() if isinstance(x, torch.Tensor) else x) for x in (rewards, labels))
    if rewards.ndim != 3 or rewards.shape[:2] != labels.shape:
        raise ValueError(
            f"Expected rewards (prompts, n, sources) and labels (prompts, n); got {rewards.shape} and {labels.shape}."
        )
    features = rewards.reshape(-1, rewards.shape[-1]).astype(np.float64)
    intercept, *weights = fit_logistic(features, labels.reshape(-1).astype(np.float64)).tolist()
    return LearnedCombination(tuple(weights), intercept)


#: Tokens between checks. A check costs little; a longer interval keeps candidates that are lost already.
INTERVAL = 4
#: The prices that are tried and drawn: from next to nothing pruned to little left but the best.
PRICES = tuple(float(f"{price:.4g}") for price in np.geomspace(0.0005, 0.1, 40))
# Penalty on standardised weights, in rollouts' worth: the features are alike, and late checks see few running
_PREFIX_RIDGE = 3.0
_VALUE_RIDGE = 1.0
# Fewer running candidates than this do not make a check of their own
_FEWEST = 50
_FOLDS = 5


def fit_pruning(scored: ScoredRollouts, judge: Judge = ScoredRollouts.prefix_features) -> PruningSchedule:
    """A schedule of price 0: everything but how much accuracy is given up.

    p is fitted to the labels of candidates running at the check, f to those of all whole rollouts, and v to what would
    be lost without a running candidate: of the one that exact best-of-n returns, P(right) less that of the second, and
    of the others 0, where P(right) = sigmoid(a + b R) is fitted to all whole rollouts. Logistic regressions all. (The
    labels themselves would say the same on average, with more noise.)

    Args:
        judge: The features to judge by; the first must be known of finished candidates, too.

    Raises:
        ValueError: Too few prompts, or labels all of one class.
    """
    lengths, right = scored.lengths, scored.labels.astype(np.float64)
    lost = lost_without(scored)
    longest = int(lengths.max())
    whole = judge(scored, longest)[..., 0].double().numpy()
    final = fit_logistic(whole.reshape(-1, 1), right.reshape(-1))
    prefix, value = [], []
    for steps in range(INTERVAL, longest, INTERVAL):
        running = lengths > steps
        if running.sum() < _FEWEST or any(not 0 < kind[running].mean() < 1 for kind in (right, lost)):
            break
        features = judge(scored, steps).double().numpy()
        p = fit_logistic(features[running], right[running], _PREFIX_RIDGE)
        logits = np.where(running, p[0] + features @ p[1:], final[0] + final[1] * features[..., 0])
        leader = logits.argmax(axis=1)[:, None]
        best, finished = (np.take_along_axis(of, leader, axis=1) for of in (logits, ~running))
        known = np.stack(np.broadcast_arrays(logits, best, finished, finished * best), -1)
        prefix.append(p.tolist())
        value.append(fit_logistic(known[running], lost[running], _VALUE_RIDGE).tolist())
    if not prefix:
        raise ValueError(
            f"Expected at least {_FEWEST} rollouts of more than {INTERVAL} tokens, right and wrong ones among them, to "
            f"fit a pruning schedule, got {int((lengths > INTERVAL).sum())}: use more prompts."
        )
    return PruningSchedule(INTERVAL, prefix, final.tolist(), value, 0.0)


def lost_without(scored: ScoredRollouts) -> np.ndarray:
    """(prompts, n) float64: by how much P(right) of the winner falls if a rollout is left out."""
    a, b = fit_logistic(scored.rewards.reshape(-1, 1), scored.labels.reshape(-1).astype(np.float64))
    chances = sigmoid(a + b * scored.rewards)
    rows, order = np.arange(len(chances)), scored.rewards.argsort(axis=1, kind="stable")
    lost = np.zeros_like(chances)
    winner, second = order[:, -1], order[:, -2:][:, 0]
    # A head that knows nothing may be right less often where it says more: nothing to lose there
    lost[rows, winner] = np.maximum(chances[rows, winner] - chances[rows, second], 0)
    return lost


def cross_fitted_replays(
    scored: ScoredRollouts, judge: Judge = ScoredRollouts.prefix_features, prices: Sequence[float] = PRICES
) -> list[Replay]:
    """For every price, a replay of each prompt under a schedule fitted on other prompts.

    Returns:
        One [`Replay`] per price, prompts in their own order.
    """

    def at_every_price(inside: ScoredRollouts, schedule: PruningSchedule) -> list[Replay]:
        return [replay_pruning(inside, replace(schedule, price=price), judge) for price in prices]

    return cross_fitted(scored, at_every_price, judge)


def cross_fitted(
    scored: ScoredRollouts,
    replay: Callable[[ScoredRollouts, PruningSchedule], list[Replay]],
    judge: Judge = ScoredRollouts.prefix_features,
) -> list[Replay]:
    """What `replay` gives, put together of five folds of the prompts, each with a schedule fitted on the others.

    So no prompt is judged by numbers that were fitted to it.

    Args:
        replay: From some of the prompts and a schedule of price 0 to replays, as many every time.
    """
    fold_of = np.random.default_rng(0).permutation(len(scored.lengths)) % _FOLDS
    folds = [replay(scored[fold_of == fold], fit_pruning(scored[fold_of != fold], judge)) for fold in range(_FOLDS)]
    back = np.argsort(fold_of, kind="stable").argsort()
    return [
        Replay(*(np.concatenate([getattr(part, name) for part in parts])[back] for name in vars(parts[0])))
        for parts in zip(*folds, strict=True)
    ]


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
    by_labels = exact.correct - replay.correct
    by_calibration = _probability(exact.winner_rewards, winner) - _average(_probability(replay.winner_rewards, winner))
    bounds = [lost.mean() + _ONE_SIDED * lost.std(ddof=1) / len(lost) ** 0.5 for lost in (by_labels, by_calibration)]
    return float(max(by_labels.mean(), min(bounds)))


def _calibration(scored: ScoredRollouts) -> dict[str, Any]:
    exact = replay_exact(scored)
    one = fit_calibration(scored.rewards.reshape(-1), scored.labels.reshape(-1))
    winner = fit_calibration(exact.winner_rewards, exact.correct.astype(bool))
    return {**asdict(one), "winner": asdict(winner), **_fitted_on(scored)}


def _pruning(scored: ScoredRollouts, winner: Calibration) -> dict[str, Any]:
    exact = replay_exact(scored)
    regrets = [regret(exact, replay, winner) for replay in cross_fitted_replays(scored)]
    fields = asdict(fit_pruning(scored))
    del fields["price"]
    prices = {str(wanted): (0.0, *PRICES)[_allowed(regrets, wanted)] for wanted in TOLERANCES}
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
    best = {str(wanted): (float(exact.tokens.sum()), 1.0, 0.0) for wanted in TOLERANCES}
    for number, price in enumerate(prices):
        own = replays[number * len(samplings) : (number + 1) * len(samplings)]
        regrets = [regret(exact, replay, winner) for replay in own]
        tried = [(float(r.tokens.sum()), s.threshold, price) for r, s in zip(own, samplings, strict=True)]
        for wanted in TOLERANCES:
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
