"""measure_tradeoff: tokens against accuracy, for pruning, adaptive n and abstention, replayed on whole rollouts."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from ..decisions.adaptive import Adaptive, AdaptiveRule
from ..decisions.calibration import Calibration
from ..decisions.fit import PRICES, cross_fitted_replays
from ..decisions.pruning import Pruning, PruningRule
from ..decisions.replay import Replay, replay_adaptive, replay_exact, replay_pruning
from ..decisions.scored_rollouts import ScoredRollouts
from ..head.configuration_elhsr import ElhsrConfig
from ..head.modeling_elhsr import ElhsrRewardHead
from ..rollouts import RolloutSet
from ..rollouts.scoring import score_rollouts
from .best_of_n import Measured
from .bootstrap import bootstrap_interval
from .metrics import brier_score, expected_calibration_error
from .numbers_file import check_names, expecting

PRUNED = "pruned by the head"
UNTRAINED = "pruned by mean log-probability"
ADAPTIVE = "adaptive n"
THRESHOLDS = tuple(float(f"{threshold:.2f}") for threshold in np.linspace(0.95, 0.1, 18))


@dataclass(frozen=True)
class Point:
    """One setting.

    Args:
        setting: The price, the threshold on P(right), or the regret that the user names.
        tokens: Share of exact best-of-n's sampled tokens.
        accuracy: Share of prompts answered right.
        difference: Its accuracy less exact best-of-n's on the same prompts (paired).
    """

    setting: float
    tokens: float
    accuracy: Measured
    difference: Measured


@dataclass(frozen=True)
class Abstention:
    """What is left where winners of a lower confidence are withheld.

    Args:
        threshold: On the confidence.
        coverage: Share of prompts answered.
        accuracy: Share of those answered right; None where none is answered.
    """

    threshold: float
    coverage: float
    accuracy: float | None


@dataclass(frozen=True)
class CalibrationError:
    """How far probabilities can be taken at their word: expected calibration error (ten bins) and Brier score."""

    expected_calibration_error: float
    brier_score: float


@dataclass(frozen=True)
class TradeOff:
    """What came out.

    Args:
        task, split, prompts, n: What was measured: so many prompts of a task's split, n rollouts each.
        skip: How many prompts of the split come before them.
        sampling: The settings the rollouts were sampled with.
        head_sha256: Of the head's weights.
        exact: Accuracy of exact best-of-n.
        mean_tokens: Sampled tokens per candidate in exact best-of-n.
        curves: By PRUNED, UNTRAINED and ADAPTIVE, the points of a sweep. The untrained pruner has the same rule, fitted
            on the other folds of these very prompts; the head's rewards choose its winner, too. It is missing where
            log-probabilities were not recorded. Of ADAPTIVE the threshold is swept, at the price of the config's middle
            regret.
        by_tolerance: By PRUNED and ADAPTIVE, the settings that the head's config holds.
        calibration: Of "rollouts" and of "winners", by the calibration in the head's config.
        abstention: Coverage and accuracy of exact best-of-n, by threshold on the winner's confidence.
        decisions_sha256: Of the decisions in the head's config, see [`decisions_digest`]; None in files that were
            written before it was recorded.
        unverified: How many prompts more were left out, since the verifier failed on a rollout of theirs.
    """

    task: str
    split: str
    prompts: int
    n: int
    sampling: dict[str, Any]
    head_sha256: str
    exact: Measured
    mean_tokens: float
    curves: dict[str, list[Point]]
    by_tolerance: dict[str, list[Point]]
    calibration: dict[str, CalibrationError]
    abstention: list[Abstention]
    skip: int = 0
    decisions_sha256: str | None = None
    unverified: int = 0

    def to_json(self) -> str:
        """As `hf-elhsr tradeoff --numbers` writes it."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TradeOff":
        """What [`to_json`] wrote.

        Raises:
            ValueError: It is something else.
        """
        with expecting("trade-off", "hf-elhsr tradeoff --numbers"):
            values = json.loads(text)
            for name in ("curves", "by_tolerance"):
                values[name] = {key: [_point(point) for point in points] for key, points in values[name].items()}
            values["exact"] = Measured.from_values(values["exact"])
            values["calibration"] = {key: CalibrationError(**error) for key, error in values["calibration"].items()}
            values["abstention"] = [Abstention(**entry) for entry in values["abstention"]]
            check_names(values)
            return cls(**values)


def decisions_digest(config: ElhsrConfig) -> str:
    """SHA-256 of what a head decides by, by which a trade-off knows what was measured: the weights do not tell it."""
    fields = {name: config.to_dict()[name] for name in ("calibration", "pruning", "adaptive")}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _point(values: dict[str, Any]) -> Point:
    accuracy, difference = (Measured.from_values(values[name]) for name in ("accuracy", "difference"))
    return Point(float(values["setting"]), float(values["tokens"]), accuracy, difference)


def measure_tradeoff(rollouts: RolloutSet, head: ElhsrRewardHead) -> TradeOff:
    """Replay the head's decisions on rollouts of prompts that it was not trained on.

    Args:
        rollouts: Followed by this head, or with features; whether the head has seen the prompts is not checked.

    Raises:
        ValueError: Prompts missing, rollouts without token arrays or of another head, a head without decisions.
    """
    rollouts.check_complete()
    settings = rollouts.settings
    scored = score_rollouts(rollouts, head)
    return TradeOff(
        task=settings["task"],
        split=settings["split"],
        skip=settings.get("skip", 0),
        sampling=settings["sampling"],
        head_sha256=head.digest(),
        decisions_sha256=decisions_digest(head.config),
        prompts=len(scored.lengths),
        unverified=settings["prompts"] - len(scored.lengths),
        n=scored.lengths.shape[1],
        **replayed(scored, head.config),
    )


def replayed(scored: ScoredRollouts, config: ElhsrConfig) -> dict[str, Any]:
    """The measured fields of a [`TradeOff`], for the decisions in a head's config.

    Raises:
        ValueError: The head lacks a decision.
    """
    calibration: Calibration = config.fitted("calibration")
    pruning: Pruning = config.fitted("pruning")
    adaptive: Adaptive = config.fitted("adaptive")
    exact = replay_exact(scored)
    winner = calibration.winner
    rules = {float(key): pruning.rule(float(key)) for key in pruning.prices}
    samplings = {float(key): adaptive.rule(float(key), winner) for key in adaptive.thresholds}
    middle = samplings[sorted(samplings)[len(samplings) // 2]]

    def pruned(rule: PruningRule) -> Replay:
        return replay_pruning(scored, rule)

    def waved(wanted: Sequence[AdaptiveRule]) -> list[Replay]:
        return replay_adaptive(scored, wanted, wanted[0].pruning_rule(pruning))

    sweep = [replace(middle, threshold=threshold) for threshold in THRESHOLDS]
    curves = {
        PRUNED: _points(exact, PRICES, [pruned(pruning.at_price(price)) for price in PRICES]),
        ADAPTIVE: _points(exact, THRESHOLDS, waved(sweep)),
    }
    if scored.token_log_probabilities is not None:
        untrained = cross_fitted_replays(scored, ScoredRollouts.mean_log_probability)
        curves[UNTRAINED] = _points(exact, PRICES, untrained)
    one = calibration.candidate
    confidences = _numpy(winner.probability, exact.winner_rewards)
    return {
        "exact": _measured(exact.correct),
        "mean_tokens": float(scored.lengths.mean()),
        "curves": curves,
        "by_tolerance": {
            PRUNED: _points(exact, list(rules), [pruned(rule) for rule in rules.values()]),
            ADAPTIVE: _points(exact, list(samplings), [waved([sampling])[0] for sampling in samplings.values()]),
        },
        "calibration": {
            "rollouts": _calibration_error(
                _numpy(one.probability, scored.rewards.reshape(-1)), scored.labels.reshape(-1)
            ),
            "winners": _calibration_error(confidences, exact.correct.astype(bool)),
        },
        "abstention": [
            _abstention(confidences, exact.correct, threshold) for threshold in reversed((*THRESHOLDS, 0.0))
        ],
    }


def _points(exact: Replay, settings: Sequence[float], replays: Sequence[Replay]) -> list[Point]:
    return [
        Point(
            setting=setting,
            tokens=float(replay.tokens.sum() / exact.tokens.sum()),
            accuracy=_measured(replay.correct),
            difference=_measured(replay.correct - exact.correct),
        )
        for setting, replay in zip(settings, replays, strict=True)
    ]


def _measured(values: np.ndarray) -> Measured:
    interval = bootstrap_interval(values[:, None], lambda means: means[:, 0])
    return Measured(float(values.mean()), *interval)


def _calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> CalibrationError:
    return CalibrationError(expected_calibration_error(probabilities, labels), brier_score(probabilities, labels))


def _abstention(confidences: np.ndarray, right: np.ndarray, threshold: float) -> Abstention:
    answered = confidences >= threshold
    accuracy = float(right[answered].mean()) if answered.any() else None
    return Abstention(threshold, float(answered.mean()), accuracy)


def _numpy(probability: Callable[[torch.Tensor], torch.Tensor], rewards: np.ndarray) -> np.ndarray:
    values: np.ndarray = probability(torch.from_numpy(rewards)).numpy()
    return values
