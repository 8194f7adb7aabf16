"""`.eval_results/*.yaml`, by which the Hub shows results beside those of other models on the dataset's page."""

import json
from dataclasses import dataclass

from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from ..evaluation import Evaluation


@dataclass(frozen=True)
class _Benchmark:
    dataset: str
    task: str
    prompts: int


#: Benchmark datasets on the Hub, with the prompts of their test splits, by the names of our tasks. Tasks whose prompts
#: are made here have none: their results are in the card alone, as `model-index`.
_BENCHMARKS = {"gsm8k": _Benchmark("openai/gsm8k", "gsm8k", 1319)}


def eval_results_files(evaluations: list[Evaluation]) -> dict[str, bytes]:
    """Contents by their paths in a repository; nothing for evaluations on other than a benchmark's whole test split."""
    files = {}
    for evaluation in evaluations:
        benchmark = _BENCHMARKS.get(evaluation.task)
        # A part of the prompts would be ranked among results on all of them
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
