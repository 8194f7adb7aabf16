"""The metric for `evaluate`, loaded by its path as users load it."""

import inspect
from pathlib import Path

import evaluate
import numpy as np
import pytest

import hf_elhsr.evaluation
from hf_elhsr.evaluation.best_of_k import best_of_k, majority_of_k, oracle_of_k

FOLDER = Path(inspect.getfile(hf_elhsr.evaluation)).parent / "best_of_n_accuracy"


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    cache = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(cache / "modules"))
        yield evaluate.load(str(FOLDER), cache_dir=str(cache))


def test_it_computes_what_the_functions_do(metric):
    rng = np.random.default_rng(0)
    labels = rng.random((40, 5)) < 0.4
    rewards = labels + rng.normal(size=labels.shape)
    answers = np.where(labels, "right", rng.choice(np.array(["x", "y"]), labels.shape)).tolist()
    result = metric.compute(predictions=rewards.tolist(), references=labels.tolist(), answers=answers)
    for name, expected in (
        ("best_of_k", best_of_k(rewards, labels)),
        ("oracle", oracle_of_k(labels)),
        ("majority_vote", majority_of_k(answers, labels)),
    ):
        assert [entry["value"] for entry in result[name]] == pytest.approx(expected.mean(axis=0))
        assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in result[name])
    correct, incorrect = rewards[labels], rewards[~labels]
    assert result["area_under_curve"] == pytest.approx((correct[:, None] > incorrect).mean())
    assert result["brier_score"] == pytest.approx(np.square(1 / (1 + np.exp(-rewards)) - labels).mean())
    assert "majority_vote" not in metric.compute(predictions=rewards.tolist(), references=labels.tolist())
    assert "brier_score" not in metric.compute(
        predictions=rewards.tolist(), references=labels.tolist(), probabilities=False
    )


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([[1.0, 2.0], [1.0]], [[True, False], [True]], "the same number of candidates"),
        ([[1.0, float("nan")]], [[True, False]], "NaN or infinity"),
        ([[1.0, 2.0]], [[False, False]], "the same label"),
    ],
)
def test_invalid_input_is_refused(metric, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=predictions, references=references)
