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
from ..decisions.fit import PRICES, THRESHOLDS, cross_fitted_replays
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


@dataclass(frozen=True)
class Point:
    """One setting.

    Args:
        setting: The price, the threshold on P(correct), or the tolerance.
        tokens: Sampled tokens as a share of those in exact best-of-n.
        accuracy: Share of prompts answered correctly.
        difference: Its accuracy minus that of exact best-of-n on the same prompts (paired).
    """

    setting: float
    tokens: float
    accuracy: Measured
    difference: Measured


@dataclass(frozen=True)
class Abstention:
    """The result of withholding winners below a confidence.

    Args:
        threshold: The lowest confidence of a winner that is returned.
        coverage: Share of prompts answered.
        accuracy: Share of those answered correctly; None if none is answered.
    """

    threshold: float
    coverage: float
    accuracy: float | None


@dataclass(frozen=True)
class CalibrationError:
    """How well probabilities are calibrated: expected calibration error (ten bins) and Brier score."""

    expected_calibration_error: float
    brier_score: float


@dataclass(frozen=True)
class TradeOff:
    """The results of replaying a head's decisions.

    Args:
        task, split, prompts, n: What was measured: this many prompts of a task's split, n rollouts each.
        skip: How many prompts of the split come before them.
        sampling: The settings the rollouts were sampled with.
        head_sha256: The digest of the head's weights.
        exact: Accuracy of exact best-of-n.
        mean_tokens: Sampled tokens per candidate in exact best-of-n.
        curves: By PRUNED, UNTRAINED and ADAPTIVE, the points of a sweep. The untrained pruner has the same rule, fitted
            on the other folds of the same prompts, and the head's rewards select its winner as well; it is missing if
            log-probabilities were not recorded. ADAPTIVE sweeps the threshold, at the price of the config's middle
            tolerance.
        by_tolerance: By PRUNED and ADAPTIVE, the settings that the head's config holds.
        calibration: For "rollouts" and "winners", the error of the calibration in the head's config.
        abstention: Coverage and accuracy of exact best-of-n, by threshold on the winner's confidence.
        decisions_sha256: The digest of the decisions in the head's config, see [`decisions_digest`]; None in files that
            were written before it was recorded.
        unverified: How many further prompts were left out because the verifier failed on one of their rollouts.
        overlong: How many further prompts were skipped because they do not fit the model's context.
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
    overlong: int = 0

    def to_json(self) -> str:
        """JSON, as `hf-elhsr tradeoff --numbers` writes it."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TradeOff":
        """Read what [`to_json`] wrote.

        Raises:
            ValueError: The text is something else.
        """
        with expecting("a trade-off", "hf-elhsr tradeoff --numbers"):
            values = json.loads(text)
            for name in ("curves", "by_tolerance"):
                values[name] = {key: [_point(point) for point in points] for key, points in values[name].items()}
            values["exact"] = Measured.from_values(values["exact"])
            values["calibration"] = {key: CalibrationError(**error) for key, error in values["calibration"].items()}
            values["abstention"] = [Abstention(**entry) for entry in values["abstention"]]
            check_names(values)
            return cls(**values)


def decisions_digest(config: ElhsrConfig) -> str:
    """SHA-256 of a head's decisions, which identifies what a trade-off measured; the weights alone do not."""
    fields = {name: config.to_dict()[name] for name in ("calibration", "pruning", "adaptive")}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _point(values: dict[str, Any]) -> Point:
    accuracy, difference = (Measured.from_values(values[name]) for name in ("accuracy", "difference"))
    return Point(float(values["setting"]), float(values["tokens"]), accuracy, difference)


def measure_tradeoff(rollouts: RolloutSet, head: ElhsrRewardHead) -> TradeOff:
    """Replay the head's decisions on rollouts of prompts that it was not trained on.

    Args:
        rollouts: A set that this head followed, or one with features; whether the head was trained on its prompts is
            not checked.

    Raises:
        ValueError: Prompts are missing, the rollouts have no token arrays or those of a different head, or the head has
            no decisions.
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
        unverified=settings["prompts"] - settings.get("skipped_overlong", 0) - len(scored.lengths),
        overlong=settings.get("skipped_overlong", 0),
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


def _abstention(confidences: np.ndarray, correct: np.ndarray, threshold: float) -> Abstention:
    answered = confidences >= threshold
    accuracy = float(correct[answered].mean()) if answered.any() else None
    return Abstention(threshold, float(answered.mean()), accuracy)


def _numpy(probability: Callable[[torch.Tensor], torch.Tensor], rewards: np.ndarray) -> np.ndarray:
    values: np.ndarray = probability(torch.from_numpy(rewards)).numpy()
    return values
