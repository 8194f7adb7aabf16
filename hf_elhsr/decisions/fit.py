"""Fitting decisions: calibration, pruning and adaptive n for a head, from prompts that it was not trained on.

`FITTERS` lists what is fitted, in order. This module is not part of the code that a published head carries.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from transformers.utils import logging

from .adaptive import Adaptive, AdaptiveRule
from .calibration import Calibration, Line
from .decision import TOLERANCES, Decision
from .logistic import fit_logistic, sigmoid
from .pruning import Pruning, PruningRule
from .replay import PrefixFeatures, Replay, replay_adaptive, replay_exact, replay_pruning
from .scored_rollouts import ScoredRollouts
from .selection import LearnedCombination

logger = logging.get_logger(__name__)

#: What has been fitted so far, by the name of the config's field; None for what could not be fitted.
Fitted = dict[str, Decision | None]

#: Tokens between checks. A check costs little; a longer interval keeps candidates that have already lost.
INTERVAL = 4
#: The prices that are tried in fitting and drawn in trade-offs: from almost nothing pruned to almost all but the best.
PRICES = tuple(float(f"{price:.4g}") for price in np.geomspace(0.0005, 0.1, 40))
# Penalty on standardised weights, in units of rollouts: the features are correlated, and late checks see few candidates
_PREFIX_RIDGE = 3.0
_VALUE_RIDGE = 1.0
# A check is fitted only if at least this many candidates are still running
_FEWEST = 50
_FOLDS = 5

#: The thresholds on P(correct) that are tried in fitting adaptive n and drawn in trade-offs.
THRESHOLDS = tuple(float(f"{threshold:.3f}") for threshold in np.linspace(0.98, 0.02, 49))
#: The prices of pruning within waves that are tried for adaptive n.
WAVE_PRICES = (0.0, 0.0003, *PRICES[:24:3])
# Random orders of rollouts that a fit averages over
_FITTING_ORDERS = 2
# Number of waves in which n candidates are sampled
_WAVES = 4
# The 95 % quantile of the standard normal distribution, for the upper end of a one-sided interval
_ONE_SIDED = 1.645


def fit_line(rewards: np.ndarray, labels: np.ndarray) -> Line:
    """The maximum-likelihood calibration, with Platt's targets.

    The targets are (correct + 1) / (correct + 2) and 1 / (incorrect + 2) in place of 1 and 0 (Platt 1999): the slope
    stays finite where a threshold separates the classes, and with many rollouts nothing changes.

    Args:
        rewards: (rollouts,) float64, of prompts that the head was not trained on.
        labels: (rollouts,) bool.

    Raises:
        ValueError: Labels all of one class, rewards that are not finite, or a slope that is not above zero: rollouts
            with higher rewards are not correct more often, so the head has learned nothing that a calibration could
            use.
    """
    correct = int(labels.sum())
    incorrect = len(labels) - correct
    if not correct or not incorrect:
        raise ValueError(f"Expected correct and incorrect rollouts, got {correct} and {incorrect}: use more prompts.")
    targets = np.where(labels, (correct + 1) / (correct + 2), 1 / (incorrect + 2))
    offset, slope = fit_logistic(rewards.astype(np.float64)[:, None], targets)
    if not slope > 0:
        raise ValueError(
            f"Expected higher rewards to be correct more often, got a slope of {slope:.3g}: train on more prompts."
        )
    return Line(float(slope), float(offset))


def fit_combination(rewards: np.ndarray | torch.Tensor, labels: np.ndarray | torch.Tensor) -> LearnedCombination:
    """Logistic regression of the label on the sources' rewards, over all candidates of all prompts.

    Fit it on prompts that no source was trained on: a source that has memorised them would get all the weight.

    Args:
        rewards: (prompts, n, sources) float, an array or a tensor.
        labels: (prompts, n) bool, an array or a tensor.

    Raises:
        ValueError: Shapes that do not match, rewards that are not finite, or labels all of one class.
    """
    rewards, labels = (np.asarray(x.cpu() if isinstance(x, torch.Tensor) else x) for x in (rewards, labels))
    if rewards.ndim != 3 or rewards.shape[:2] != labels.shape:
        raise ValueError(
            f"Expected rewards (prompts, n, sources) and labels (prompts, n); got {rewards.shape} and {labels.shape}."
        )
    features = rewards.reshape(-1, rewards.shape[-1]).astype(np.float64)
    intercept, *weights = fit_logistic(features, labels.reshape(-1).astype(np.float64)).tolist()
    return LearnedCombination(tuple(weights), intercept)


def fit_pruning_rule(
    scored: ScoredRollouts, prefix_features: PrefixFeatures = ScoredRollouts.prefix_features
) -> PruningRule:
    """A rule of price 0: everything but how much accuracy may be given up.

    p is fitted to the labels of candidates running at the check, f to those of all whole rollouts, and v to the loss
    without a running candidate: for the one that exact best-of-n returns, P(correct) minus that of the second best, and
    for the others 0, where P(correct) = sigmoid(a + b R) is fitted to all whole rollouts. All are logistic regressions.
    (The labels themselves would give the same on average, with more noise.)

    Args:
        prefix_features: What the rule reads; the first feature must be defined for finished candidates as well.

    Raises:
        ValueError: Too few prompts, or labels all of one class.
    """
    lengths, correct = scored.lengths, scored.labels.astype(np.float64)
    lost = lost_without(scored)
    longest = int(lengths.max())
    whole = prefix_features(scored, longest)[..., 0].double().numpy()
    final = fit_logistic(whole.reshape(-1, 1), correct.reshape(-1))
    prefix, value = [], []
    for steps in range(INTERVAL, longest, INTERVAL):
        running = lengths > steps
        if running.sum() < _FEWEST or any(not 0 < kind[running].mean() < 1 for kind in (correct, lost)):
            break
        features = prefix_features(scored, steps).double().numpy()
        p = fit_logistic(features[running], correct[running], _PREFIX_RIDGE)
        logits = np.where(running, p[0] + features @ p[1:], final[0] + final[1] * features[..., 0])
        leader = logits.argmax(axis=1)[:, None]
        best, finished = (np.take_along_axis(of, leader, axis=1) for of in (logits, ~running))
        known = np.stack(np.broadcast_arrays(logits, best, finished, finished * best), -1)
        prefix.append(tuple(p.tolist()))
        value.append(tuple(fit_logistic(known[running], lost[running], _VALUE_RIDGE).tolist()))
    if not prefix:
        raise ValueError(
            f"Expected at least {_FEWEST} rollouts of more than {INTERVAL} tokens, both correct and incorrect ones, to "
            f"fit a pruning schedule, got {int((lengths > INTERVAL).sum())}: use more prompts."
        )
    return PruningRule(INTERVAL, tuple(prefix), tuple(final.tolist()), tuple(value))


def lost_without(scored: ScoredRollouts) -> np.ndarray:
    """(prompts, n) float64: how much P(correct) of the winner falls if a rollout is left out."""
    a, b = fit_logistic(scored.rewards.reshape(-1, 1), scored.labels.reshape(-1).astype(np.float64))
    chances = sigmoid(a + b * scored.rewards)
    rows, order = np.arange(len(chances)), scored.rewards.argsort(axis=1, kind="stable")
    lost = np.zeros_like(chances)
    winner, second = order[:, -1], order[:, -2:][:, 0]
    # Under a head that has learned nothing, higher rewards may be correct less often: then nothing is lost
    lost[rows, winner] = np.maximum(chances[rows, winner] - chances[rows, second], 0)
    return lost


def cross_fitted_replays(
    scored: ScoredRollouts,
    prefix_features: PrefixFeatures = ScoredRollouts.prefix_features,
    prices: Sequence[float] = PRICES,
) -> list[Replay]:
    """For every price, a replay of each prompt under a rule that was fitted on other prompts.

    Returns:
        One [`Replay`] per price, with the prompts in their original order.
    """

    def at_every_price(inside: ScoredRollouts, rule: PruningRule) -> list[Replay]:
        return [replay_pruning(inside, replace(rule, price=price), prefix_features) for price in prices]

    return cross_fitted(scored, at_every_price, prefix_features)


def cross_fitted(
    scored: ScoredRollouts,
    replay: Callable[[ScoredRollouts, PruningRule], list[Replay]],
    prefix_features: PrefixFeatures = ScoredRollouts.prefix_features,
) -> list[Replay]:
    """The results of `replay` on five folds of the prompts, each with a rule fitted on the others.

    So no prompt is replayed under a rule that was fitted on it.

    Args:
        replay: From some of the prompts and a rule of price 0 to replays, always the same number of them.
    """
    fold_of = np.random.default_rng(0).permutation(len(scored.lengths)) % _FOLDS
    folds = [
        replay(scored[fold_of == fold], fit_pruning_rule(scored[fold_of != fold], prefix_features))
        for fold in range(_FOLDS)
    ]
    back = np.argsort(fold_of, kind="stable").argsort()
    return [
        Replay(*(np.concatenate([getattr(part, name) for part in parts])[back] for name in vars(parts[0])))
        for parts in zip(*folds, strict=True)
    ]


def fit_decisions(scored: ScoredRollouts, with_pruning: bool = True) -> Fitted:
    """The decisions for a head's config, by field: calibration, pruning and adaptive n.

    A setting is allowed for a tolerance if its [`accuracy_loss`] on these prompts is at most that. Pruning is replayed
    on prompts that its rule was not fitted on. The stored setting saves most among those before the first that is not
    allowed.

    Args:
        scored: Rollouts of held-out prompts, with the head's token rewards and gates.
        with_pruning: Whether to fit pruning, which needs every token.

    Returns:
        One entry for each of [`FITTERS`]; None for what cannot be fitted, with a warning that gives the reason.
    """
    fitted: Fitted = {}
    for name, fitter in FITTERS.items():
        fitted[name] = None
        if fitted["calibration"] is None and name != "calibration":
            continue
        if name == "pruning" and not with_pruning:
            continue
        try:
            fitted[name] = fitter(scored, fitted)
        except ValueError as error:
            others = " and no decision that needs one" if name == "calibration" else ""
            logger.warning(f"The head gets no {name}{others}. {error}")
    return fitted


def accuracy_loss(exact: Replay, replay: Replay, winner: Line) -> float:
    """A conservative estimate of the accuracy that a replay gives up against exact best-of-n.

    There are two estimates. The loss by labels is unbiased but coarse: few winners change, and many of those are
    incorrect before and after. The loss in calibrated P(correct) from exact to actual winners has no such noise, and
    errs on the safe side, since a reward that beats another good one deserves less trust than one without a rival. The
    upper end of each one's one-sided 95 % interval over prompts is a bound; the lower of the two bounds counts.

    Args:
        winner: The calibration of winners.
    """
    by_labels = exact.correct - replay.correct
    by_calibration = _probability(exact.winner_rewards, winner) - _average(_probability(replay.winner_rewards, winner))
    bounds = [lost.mean() + _ONE_SIDED * lost.std(ddof=1) / len(lost) ** 0.5 for lost in (by_labels, by_calibration)]
    return float(max(by_labels.mean(), min(bounds)))


def fit_calibration(scored: ScoredRollouts, fitted: Fitted) -> Calibration:
    """The calibration of single rollouts, and of the winners of exact best-of-n."""
    exact = replay_exact(scored)
    one = fit_line(scored.rewards.reshape(-1), scored.labels.reshape(-1))
    winner = fit_line(exact.winner_rewards, exact.correct.astype(bool))
    return Calibration(one.slope, one.offset, winner, **_fitted_on(scored))


def fit_pruning(scored: ScoredRollouts, fitted: Fitted) -> Pruning:
    """The rule, and the highest allowed price for each tolerance."""
    exact, winner = replay_exact(scored), _winner(fitted)
    losses = [accuracy_loss(exact, replay, winner) for replay in cross_fitted_replays(scored)]
    prices = {str(tolerance): (0.0, *PRICES)[_allowed(losses, tolerance)] for tolerance in TOLERANCES}
    rule = fit_pruning_rule(scored)
    return Pruning(rule.interval, rule.prefix, rule.final, rule.value, prices, **_fitted_on(scored))


def fit_adaptive(scored: ScoredRollouts, fitted: Fitted) -> Adaptive:
    """For each tolerance, the threshold and the price of pruning within waves that together sample fewest tokens."""
    exact, winner = replay_exact(scored), _winner(fitted)
    with_pruning = fitted.get("pruning") is not None
    wave = max(1, scored.lengths.shape[1] // _WAVES)
    rules = [AdaptiveRule(wave, threshold, winner) for threshold in (1.0, *THRESHOLDS)]
    prices = WAVE_PRICES if with_pruning else (0.0,)

    def at_every_setting(inside: ScoredRollouts, rule: PruningRule | None) -> list[Replay]:
        priced = [None if rule is None else replace(rule, price=price) for price in prices]
        swept = [replay_adaptive(inside, rules, pruning, orders=_FITTING_ORDERS) for pruning in priced]
        return [replay for replays in swept for replay in replays]

    replays = cross_fitted(scored, at_every_setting) if with_pruning else at_every_setting(scored, None)
    best = {str(tolerance): (float(exact.tokens.sum()), 1.0, 0.0) for tolerance in TOLERANCES}
    for number, price in enumerate(prices):
        own = replays[number * len(rules) : (number + 1) * len(rules)]
        losses = [accuracy_loss(exact, replay, winner) for replay in own]
        tried = [(float(r.tokens.sum()), rule.threshold, price) for r, rule in zip(own, rules, strict=True)]
        for tolerance in TOLERANCES:
            best[str(tolerance)] = min([best[str(tolerance)], *tried[: _allowed(losses, tolerance)]])
    return Adaptive(
        wave,
        thresholds={tolerance: threshold for tolerance, (_, threshold, _) in best.items()},
        prices={tolerance: price for tolerance, (_, _, price) in best.items()},
        **_fitted_on(scored),
    )


#: What is fitted for a head, in this order, by the name of the config's field. Each is called with the rollouts and
#: what was fitted before it, and raises a ValueError if its decision cannot be fitted.
FITTERS: dict[str, Callable[[ScoredRollouts, Fitted], Decision]] = {
    "calibration": fit_calibration,
    "pruning": fit_pruning,
    "adaptive": fit_adaptive,
}


def _winner(fitted: Fitted) -> Line:
    calibration = fitted.get("calibration")
    if not isinstance(calibration, Calibration):
        raise ValueError("Expected a calibration of winners, which the accuracy loss is computed with, got none.")
    return calibration.winner


def _allowed(losses: list[float], tolerance: float) -> int:
    """How many settings come before the first that gives up too much; each saves more than the one before it."""
    return next((place for place, lost in enumerate(losses) if lost > tolerance), len(losses))


def _fitted_on(scored: ScoredRollouts) -> dict[str, int]:
    return {"n": scored.lengths.shape[1], "prompts": len(scored.lengths)}


def _probability(rewards: np.ndarray, line: Line) -> np.ndarray:
    return sigmoid(line.slope * rewards + line.offset)


def _average(values: np.ndarray) -> np.ndarray:
    return values if values.ndim == 1 else values.mean(axis=1)
