"""best_of_n_accuracy: a metric for the library `evaluate`; see README.md in this folder."""

from typing import Any

import datasets
import evaluate
import numpy as np

from hf_elhsr.decisions.logistic import sigmoid
from hf_elhsr.evaluation.best_of_k import best_of_k, majority_of_k, oracle_of_k
from hf_elhsr.evaluation.bootstrap import bootstrap_interval
from hf_elhsr.evaluation.metrics import area_under_curve, brier_score, expected_calibration_error

_DESCRIPTION = """
Accuracy of the candidate with the highest reward among k, for every k up to n, as the exact expectation over all
subsets of a prompt's n candidates, with 95 % bootstrap intervals over prompts; also for the oracle and majority vote.
"""

_CITATION = """
@article{guo2025elhsr,
  title={Mining Intrinsic Rewards from LLM Hidden States for Efficient Best-of-N Sampling},
  author={Guo, Jizhou and Wu, Zhaomin and Yang, Hanchen and Yu, Philip S.},
  journal={arXiv preprint arXiv:2505.12225},
  year={2025}
}
"""

_INPUTS = """
Args:
    predictions: for every prompt, the rewards of its n candidates; any scale, higher is better.
    references: for every prompt, whether each candidate is correct.
    answers: for every prompt, the final answer of each candidate or None; adds `majority_vote`.
    probabilities: whether sigmoid(reward) estimates P(correct); adds `expected_calibration_error` and `brier_score`.
    seed: seed of the bootstrap.
"""


class BestOfNAccuracy(evaluate.Metric):
    """The metric, in the form that `evaluate.load` expects."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Sequence(datasets.Value("bool")),
                }
            ),
        )

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[list[bool]],
        answers: list[list[str | None]] | None = None,
        probabilities: bool = True,
        seed: int = 0,
    ) -> dict[str, Any]:
        sizes = {len(row) for row in predictions} | {len(row) for row in references}
        if len(sizes) != 1:
            raise ValueError(f"Expected the same number of candidates for every prompt, got {sorted(sizes)}.")
        rewards, labels = np.array(predictions, dtype=np.float64), np.array(references, dtype=bool)
        if labels.all() or not labels.any():
            raise ValueError("All candidates have the same label, so there is nothing to select: use more prompts.")
        curves = {"best_of_k": best_of_k(rewards, labels), "oracle": oracle_of_k(labels)}
        if answers is not None:
            curves["majority_vote"] = majority_of_k(answers, labels)
        result: dict[str, Any] = {
            name: [_measured(curve[:, [k]], seed) for k in range(curve.shape[1])] for name, curve in curves.items()
        }
        result["area_under_curve"] = area_under_curve(rewards.reshape(-1), labels.reshape(-1))
        if probabilities:
            estimates = sigmoid(rewards.reshape(-1))
            result["expected_calibration_error"] = expected_calibration_error(estimates, labels.reshape(-1))
            result["brier_score"] = brier_score(estimates, labels.reshape(-1))
        return result


def _measured(values: np.ndarray, seed: int) -> dict[str, float]:
    low, high = bootstrap_interval(values, lambda means: means[:, 0], seed=seed)
    return {"value": float(values.mean()), "low": low, "high": high}
