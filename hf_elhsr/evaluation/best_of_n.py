"""evaluate_rollouts: best-of-n accuracy of every strategy, paired comparisons, and the gap closed."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from ..decisions.logistic import sigmoid
from ..decisions.selection import LearnedCombination, min_max, worse_of_ranks
from ..rollouts import Rollout, RolloutSet
from ..rollouts.rollout import by_prompt
from . import strategies
from .best_of_k import best_of_k, majority_of_k, oracle_of_k
from .bootstrap import interval_of, resampled_means
from .metrics import area_under_curve, brier_score, expected_calibration_error
from .numbers_file import check_names, expecting

STRATEGIES = {
    "single sample": strategies.single_sample,
    "majority vote": strategies.majority_vote,
    "shortest": strategies.shortest,
    "summed log-probability": strategies.summed_log_probability,
    "mean log-probability": strategies.mean_log_probability,
    "self-certainty": strategies.self_certainty,
    "reward head": strategies.reward_head,
    "vote weighted by the head": strategies.weighted_vote,
    "oracle": strategies.oracle,
}
#: The baselines that every judge is compared with.
NEEDS_NO_TRAINING = ("majority vote", "mean log-probability")
#: Also measured if a text reward model scored the rollouts.
TEXT_STRATEGIES = ("text reward model", "head and text, worse of ranks", "head and text, min-max")
#: Also measured if a combination of head and text reward model was fitted.
LEARNED_STRATEGY = "head and text, learned"


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % bootstrap interval over prompts."""

    value: float
    low: float
    high: float

    @classmethod
    def from_values(cls, values: dict[str, float]) -> "Measured":
        """The reverse of `asdict`."""
        return cls(**{name: float(value) for name, value in values.items()})

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation, as shares of prompts between 0 and 1.

    Args:
        task, split, prompts, n: What was evaluated: this many prompts of a task's split, n rollouts each.
        skip: How many prompts of the split come before them.
        sampling: The settings the rollouts were sampled with.
        head_sha256: The digest of the head's weights, see `ElhsrRewardHead.digest`.
        accuracy: For each strategy, the share of prompts answered correctly.
        head_minus: The head's accuracy minus that of each strategy on the same prompts (paired).
        gap_closed: (head - single sample) / (oracle - single sample).
        area_under_curve: AUC of the reward, over all rollouts.
        expected_calibration_error: That of sigmoid(R), over all rollouts, in ten bins.
        brier_score: That of sigmoid(R), over all rollouts.
        base_rate: Share of correct rollouts.
        answered: Share of rollouts with a final answer; None if the task finds none in any. If `base_rate / answered`
            is no better than guessing, all that a head can learn is which rollouts answer.
        unverified: How many further prompts were left out because the verifier failed on one of their rollouts.
        overlong: How many further prompts were skipped because they do not fit the model's context.
        by_k: The accuracy of majority vote, head and oracle with k of the n rollouts, for k from 1 to n.
        text_reward_model: The name of the model that scored the texts, if there was one.
        judges_minus: For each further judge that followed the sampling, its accuracy minus that of
            [`NEEDS_NO_TRAINING`] (paired).
    """

    task: str
    split: str
    prompts: int
    n: int
    sampling: dict[str, Any]
    head_sha256: str
    accuracy: dict[str, Measured]
    head_minus: dict[str, Measured]
    gap_closed: Measured
    area_under_curve: float
    expected_calibration_error: float
    base_rate: float
    brier_score: float | None = None
    answered: float | None = None
    skip: int = 0
    unverified: int = 0
    overlong: int = 0
    by_k: dict[str, list[Measured]] = field(default_factory=dict)
    text_reward_model: str | None = None
    judges_minus: dict[str, dict[str, Measured]] = field(default_factory=dict)

    def to_json(self) -> str:
        """JSON, as `hf-elhsr evaluate --numbers` writes it."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Evaluation":
        """Read what [`to_json`] wrote.

        Raises:
            ValueError: The text is something else.
        """
        read = Measured.from_values
        with expecting("an evaluation", "hf-elhsr evaluate --numbers"):
            values = json.loads(text)
            for name in ("accuracy", "head_minus"):
                values[name] = {key: read(measured) for key, measured in values[name].items()}
            values["gap_closed"] = read(values["gap_closed"])
            judges = values.get("judges_minus", {})
            values["judges_minus"] = {
                judge: {key: read(measured) for key, measured in own.items()} for judge, own in judges.items()
            }
            curves = values.get("by_k", {})
            values["by_k"] = {name: [read(measured) for measured in curve] for name, curve in curves.items()}
            check_names(values)
            return cls(**values)


def evaluate_rollouts(
    rollouts: RolloutSet,
    text_scores: dict[str, list[float]] | None = None,
    text_reward_model: str | None = None,
    combination: LearnedCombination | None = None,
    seed: int = 0,
) -> Evaluation:
    """Evaluate rollouts that a head has followed, and further judges that followed them as well.

    Args:
        text_scores: For every prompt, by its id, a text reward model's score of every rollout, see
            [`score_rollout_texts`]; then [`TEXT_STRATEGIES`] are measured as well.
        text_reward_model: Its name, for the record.
        combination: Combines the head's rewards and the text scores, from [`fit_combination`] on other prompts; then
            [`LEARNED_STRATEGY`] is measured as well.

    Raises:
        ValueError: There is a combination without text scores, prompts, scores or rewards are missing, a reward or
            score is not finite, or labels are all of one class.
    """
    if combination is not None and text_scores is None:
        raise ValueError("A combination of head and text needs text scores: pass text_scores as well.")
    rollouts.check_complete()
    prompts = [members for shard, _ in rollouts.shards() for members in by_prompt(shard)]
    _check(prompts)
    head_rewards = np.array([[rollout.reward for rollout in group] for group in prompts], dtype=np.float64)
    correct = np.array([[rollout.correct for rollout in group] for group in prompts])
    available = dict(STRATEGIES)
    if any(rollout.self_certainty is None for group in prompts for rollout in group):
        # Some were sampled before it was recorded
        del available["self-certainty"]
    table = np.array([[strategy(group) for strategy in available.values()] for group in prompts], dtype=np.float64)
    columns = {name: column for column, name in enumerate(available)}
    judges = _judged(prompts)
    for name, judged in judges.items():
        columns[name] = table.shape[1]
        table = np.c_[table, best_of_k(judged, correct)[:, -1]]
    if text_scores is not None:
        texts = _text_rewards(text_scores, prompts)
        both = torch.from_numpy(np.stack([head_rewards, texts], axis=-1))
        together = [_ties_to(head_rewards, combine(both).numpy()) for combine in (worse_of_ranks, min_max)]
        with_text = dict(zip(TEXT_STRATEGIES, (texts, *together), strict=True))
        if combination is not None:
            with_text[LEARNED_STRATEGY] = _ties_to(head_rewards, combination(both).numpy())
        for name, scored in with_text.items():
            columns[name] = table.shape[1]
            table = np.c_[table, best_of_k(scored, correct)[:, -1]]
    head, single, oracle = (columns[name] for name in ("reward head", "single sample", "oracle"))

    rewards, labels = head_rewards.reshape(-1), correct.reshape(-1)
    answers = [[rollout.answer for rollout in group] for group in prompts]
    curves = {
        "majority vote": majority_of_k(answers, correct),
        "reward head": best_of_k(head_rewards, correct),
        "oracle": oracle_of_k(correct),
    }
    first_of = {name: table.shape[1] + number * len(prompts[0]) for number, name in enumerate(curves)}
    table = np.concatenate([table, *curves.values()], axis=1)
    means = resampled_means(table, seed=seed)

    def measured(statistic: Callable[[np.ndarray], np.ndarray]) -> Measured:
        value = float(statistic(table.mean(axis=0, keepdims=True))[0])
        return Measured(value, *interval_of(statistic, means))

    return Evaluation(
        task=rollouts.settings["task"],
        split=rollouts.settings["split"],
        prompts=len(prompts),
        n=len(prompts[0]),
        sampling=rollouts.settings["sampling"],
        head_sha256=rollouts.settings["head_sha256"],
        accuracy={name: measured(_column(column)) for name, column in columns.items()},
        head_minus={
            name: measured(_difference(head, column))
            for name, column in columns.items()
            if column not in (head, oracle)
        },
        gap_closed=measured(lambda means: (means[:, head] - means[:, single]) / (means[:, oracle] - means[:, single])),
        area_under_curve=area_under_curve(rewards, labels),
        expected_calibration_error=expected_calibration_error(sigmoid(rewards), labels),
        brier_score=brier_score(sigmoid(rewards), labels),
        base_rate=float(labels.mean()),
        answered=float(np.mean([answer is not None for own in answers for answer in own])) or None,
        skip=rollouts.settings.get("skip", 0),
        text_reward_model=text_reward_model,
        unverified=rollouts.settings["prompts"] - rollouts.settings.get("skipped_overlong", 0) - len(prompts),
        overlong=rollouts.settings.get("skipped_overlong", 0),
        judges_minus={
            name: {other: measured(_difference(columns[name], columns[other])) for other in NEEDS_NO_TRAINING}
            for name in judges
        },
        by_k={name: [measured(_column(first + k)) for k in range(len(prompts[0]))] for name, first in first_of.items()},
    )


def _judged(prompts: list[list[Rollout]]) -> dict[str, np.ndarray]:
    """By name, (prompts, n) rewards from the further judges that followed the sampling."""
    names = list(prompts[0][0].judged or {})
    taken = sorted({*STRATEGIES, *TEXT_STRATEGIES, LEARNED_STRATEGY} & set(names))
    if taken:
        raise ValueError(
            f"Judges are called {taken}, which are names of strategies: sample the rollouts with different names."
        )
    return {
        name: np.array([[(rollout.judged or {})[name] for rollout in group] for group in prompts], dtype=np.float64)
        for name in names
    }


def _text_rewards(text_scores: dict[str, list[float]], prompts: list[list[Rollout]]) -> np.ndarray:
    scores = [text_scores.get(group[0].problem, []) for group in prompts]
    for group, own in zip(prompts, scores, strict=True):
        if len(own) != len(group):
            raise ValueError(
                f"Expected a text score for each of the {len(group)} rollouts of problem {group[0].problem!r}, got "
                f"{len(own)}: score this set of rollouts."
            )
    return np.array(scores, dtype=np.float64)


def _ties_to(first: np.ndarray, combined: np.ndarray) -> np.ndarray:
    """Ranks by combined scores, with ties broken by the first source, as in `generate`."""
    pairs = zip(combined, first, strict=True)
    return np.stack([np.unique(np.stack(pair, -1), axis=0, return_inverse=True)[1].reshape(-1) for pair in pairs])


def _column(column: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda means: means[:, column]


def _difference(first: int, second: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda means: means[:, first] - means[:, second]


def _check(prompts: list[list[Rollout]]) -> None:
    rollouts = [rollout for group in prompts for rollout in group]
    if not rollouts:
        raise ValueError("No prompt is left to evaluate: the verifier failed on all of them. Fix the verifier.")
    if len({len(group) for group in prompts}) != 1:
        raise ValueError("Prompts have different numbers of rollouts: the set is damaged or has a duplicate prompt.")
    if any(rollout.reward is None or not np.isfinite(rollout.reward) for rollout in rollouts):
        raise ValueError("Every rollout needs a finite reward: sample them with a head (`hf-elhsr evaluate` does so).")
    if not any(0 < sum(rollout.correct for rollout in group) < len(group) for group in prompts):
        raise ValueError(
            "No prompt has both correct and incorrect rollouts, so there is nothing to select: use more prompts."
        )
