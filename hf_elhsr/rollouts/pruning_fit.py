"""fit_pruning: the numbers of a pruning schedule, from rollouts of prompts that the head was not trained on."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..rewards.logistic import fit_logistic
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

    p is fitted to the labels of candidates running at the check, f to those of all whole rollouts, v to whether a
    running candidate is the one that exact best-of-n returns, and right: logistic regressions all.

    Args:
        judge: The features to judge by; the first must be known of finished candidates, too.

    Raises:
        ValueError: Too few prompts, or labels all of one class.
    """
    lengths, right = scored.lengths, scored.labels.astype(np.float64)
    is_winner = np.arange(lengths.shape[1]) == scored.rewards.argmax(axis=1)[:, None]
    returned = (is_winner & scored.labels).astype(np.float64)
    longest = int(lengths.max())
    whole = judge(scored, longest)[..., 0].double().numpy()
    final = fit_logistic(whole.reshape(-1, 1), right.reshape(-1))
    prefix, value = [], []
    for steps in range(INTERVAL, longest, INTERVAL):
        running = lengths > steps
        if running.sum() < _FEWEST or any(not 0 < kind[running].mean() < 1 for kind in (right, returned)):
            break
        features = judge(scored, steps).double().numpy()
        p = fit_logistic(features[running], right[running], _PREFIX_RIDGE)
        logits = np.where(running, p[0] + features @ p[1:], final[0] + final[1] * features[..., 0])
        best = np.broadcast_to(logits.max(axis=1, keepdims=True), logits.shape)
        prefix.append(p.tolist())
        value.append(fit_logistic(np.stack([logits, best], -1)[running], returned[running], _VALUE_RIDGE).tolist())
    if not prefix:
        raise ValueError(
            f"Expected at least {_FEWEST} rollouts of more than {INTERVAL} tokens, right and wrong ones among them, to "
            f"fit a pruning schedule, got {int((lengths > INTERVAL).sum())}: hold out more prompts."
        )
    return PruningSchedule(INTERVAL, prefix, final.tolist(), value, 0.0)


def cross_fitted_replays(
    scored: ScoredRollouts, judge: Judge = ScoredRollouts.prefix_features, prices: Sequence[float] = PRICES
) -> list[Replay]:
    """For every price, a replay of each prompt under a schedule fitted on other prompts (five folds).

    So no prompt is judged by numbers that were fitted to it.

    Returns:
        One [`Replay`] per price, prompts in their own order.
    """
    fold_of = np.random.default_rng(0).permutation(len(scored.lengths)) % _FOLDS
    replays = [Replay(*np.zeros((3, len(scored.lengths)))) for _ in prices]
    for fold in range(_FOLDS):
        schedule = fit_pruning(scored[fold_of != fold], judge)
        inside = scored[fold_of == fold]
        for price, replay in zip(prices, replays, strict=True):
            part = replay_pruning(inside, replace(schedule, price=price), judge)
            for name, values in vars(part).items():
                getattr(replay, name)[fold_of == fold] = values
    return replays
