"""fit_pruning: the numbers of a pruning schedule, from rollouts of prompts that the head was not trained on."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..rewards.logistic import fit_logistic, sigmoid
from ..rewards.pruning import PruningSchedule
from .replay import Judge, Replay, replay_pruning
from .scored_rollouts import ScoredRollouts

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
