"""`.eval_results/*.yaml`, by which the Hub shows results beside those of other models on the dataset's page."""

import json

from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from ..evaluation import Evaluation

#: Benchmark datasets on the Hub, and their names for the task, by the names of ours. Tasks whose prompts are made here
#: have none: their results are in the card alone, as `model-index`.
DATASETS = {"gsm8k": ("openai/gsm8k", "gsm8k")}


def eval_results_files(evaluations: list[Evaluation]) -> dict[str, bytes]:
    """Contents by their paths in a repository; nothing for evaluations on other than the test split of [`DATASETS`]."""
    files = {}
    for evaluation in evaluations:
        if evaluation.task in DATASETS and evaluation.split == "test":
            dataset, task = DATASETS[evaluation.task]
            head = evaluation.accuracy["reward head"]
            entry = EvalResultEntry(
                dataset_id=dataset,
                task_id=task,
                value=round(100 * head.value, 2),
                notes=f"best of {evaluation.n} samples of the base model by this reward head, on {evaluation.prompts} "
                f"prompts; 95 % interval {100 * head.low:.1f} to {100 * head.high:.1f}",
            )
            # JSON is YAML, too
            text = json.dumps(eval_result_entries_to_yaml([entry]), indent=2) + "\n"
            files[f".eval_results/{evaluation.task}.yaml"] = text.encode()
    return files
