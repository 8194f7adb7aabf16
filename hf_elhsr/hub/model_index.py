"""Best-of-n accuracies in a card's metadata (`model-index`): written from evaluations, and read."""

import json
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from ..evaluation import Evaluation

_METRIC = "accuracy"


@dataclass(frozen=True)
class ReportedResult:
    """A result that a card claims for its head on one task.

    Args:
        task, split: The prompts that it was measured on.
        metric: The metric's name, with n.
        accuracy: Between 0 and 1.
        interval: The ends of the 95 % interval, where the card has them.
    """

    task: str
    split: str
    metric: str
    accuracy: float
    interval: tuple[float, float] | None


def model_index_results(evaluations: list[Evaluation]) -> list[EvalResult]:
    """The head's accuracy in every evaluation, in percent with the digits that the card shows."""
    results = []
    for evaluation in evaluations:
        measured = evaluation.accuracy["reward head"]
        results.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=evaluation.task,
                dataset_name=evaluation.task,
                dataset_split=evaluation.split,
                metric_type=_METRIC,
                metric_name=f"best-of-{evaluation.n} accuracy, %, of {evaluation.prompts} prompts",
                metric_value=round(100 * measured.value, 1),
                metric_args={"low": round(100 * measured.low, 1), "high": round(100 * measured.high, 1)},
            )
        )
    return results


def reported_results(model_index: Any) -> list[ReportedResult]:
    """The accuracies in a `model-index`, in its order. Anybody may have written it, so entries may be malformed."""
    return [
        ReportedResult(
            str(result["dataset"].get("name")),
            str(result["dataset"].get("split")),
            metric["name"],
            metric["value"] / 100,
            _interval(metric.get("args")),
        )
        for entry in _list(model_index)
        for result in _list(entry.get("results"))
        if isinstance(result.get("dataset"), dict)
        for metric in _list(result.get("metrics"))
        if metric.get("type") == _METRIC and isinstance(metric.get("name"), str) and _is_share(metric.get("value"))
    ]


def _interval(given: Any) -> tuple[float, float] | None:
    ends: list[Any] = [given.get("low"), given.get("high")] if isinstance(given, dict) else []
    shares = [end / 100 for end in ends if _is_share(end)]
    return (shares[0], shares[1]) if len(shares) == 2 else None


def _list(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100


@dataclass(frozen=True)
class _Benchmark:
    dataset: str
    task: str
    prompts: int


#: Benchmark datasets on the Hub, with the number of prompts in their test splits, by the names of our tasks. Tasks that
#: generate their prompts have no benchmark: their results are in the card alone, as `model-index`.
_BENCHMARKS = {"gsm8k": _Benchmark("openai/gsm8k", "gsm8k", 1319)}


def eval_results_files(evaluations: list[Evaluation]) -> dict[str, bytes]:
    """The files of `.eval_results/` by their paths in a repository, for evaluations on whole benchmarks."""
    files = {}
    for evaluation in evaluations:
        benchmark = _BENCHMARKS.get(evaluation.task)
        # Results on some of the prompts would be ranked among results on all of them
        if benchmark is None or (evaluation.split, evaluation.prompts) != ("test", benchmark.prompts):
            continue
        head, sampling = evaluation.accuracy["reward head"], evaluation.sampling
        entry = EvalResultEntry(
            dataset_id=benchmark.dataset,
            task_id=benchmark.task,
            value=round(100 * head.value, 2),
            notes=f"best of {evaluation.n} samples of the base model by this reward head, zero-shot, temperature "
            f"{sampling['temperature']}, top_p {sampling['top_p']}, top_k {sampling['top_k']}, at most "
            f"{sampling['max_new_tokens']} new tokens; 95 % interval {100 * head.low:.1f} to {100 * head.high:.1f}",
        )
        # JSON is YAML, too
        text = json.dumps(eval_result_entries_to_yaml([entry]), indent=2) + "\n"
        files[f".eval_results/{evaluation.task}.yaml"] = text.encode()
    return files
