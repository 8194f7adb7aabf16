"""report.md, report.json and plots of a reproduction."""

import dataclasses
import json
from pathlib import Path

from safetensors.torch import load_file

from hf_elhsr._files import write_text
from hf_elhsr.evaluation import Evaluation, evaluation_markdown, plot_evaluation
from hf_elhsr.evaluation.report import save_figure

from .plan import Plan, TaskPlan


def write_report(plan: Plan, folder: Path, evaluations: dict[str, Evaluation]) -> None:
    """Write report.md, report.json and a plot for every task."""
    train = plan.train_sampling
    lines = [
        f"# The comparison of arXiv:2505.12225, with {plan.model}",
        "",
        "Made by `examples/reproduce_paper.py`. Everything that is trained learns from the same "
        f"{train.n} rollouts a prompt, a fifth of the prompts held out; everything is measured on the same "
        "rollouts of unseen prompts. The reward head is the one trained on the task's hidden states. "
        "`report.json` has all numbers.",
        "",
    ]
    numbers = {}
    for task in plan.tasks:
        evaluation, own = evaluations[task.name], folder / task.folder
        # Not all that is in the folder: a former plan may have had more
        training = {name: json.loads((own / name / "training.json").read_text()) for name in task.trained}
        # What a classifier's training took before it was killed, if it was, is not counted
        seconds = {n: record.get("seconds", record.get("seconds_since_last_start")) for n, record in training.items()}
        parameters = {name: _parameters(own / name) for name in training}
        numbers[task.name] = {
            "evaluation": json.loads(evaluation.to_json()),
            "training_seconds": seconds,
            "parameters": parameters,
        }
        plot_evaluation(evaluation, own / "evaluation.svg")
        lines += [f"## {task.name}: {task.train_prompts} training prompts", "", evaluation_markdown(evaluation), ""]
        if task.few_layers:
            layers = ", ".join(map(str, task.few_layers))
            lines += [f"The head on {len(task.few_layers)} layers reads `hidden_states` {layers}.", ""]
        lines += ["| trained | parameters | training, s |", "|---|---:|---:|"]
        lines += [f"| {name} | {parameters[name]:,} | {seconds[name]:,.0f} |" for name in seconds]
        lines += ["", f"![Accuracy by number of candidates]({task.folder}/evaluation.svg)", ""]
        if task.few_prompts:
            plot_training_sizes(task, evaluation, own / "training_size.svg")
            lines += [f"![Accuracy by training prompts]({task.folder}/training_size.svg)", ""]
    report = {"plan": dataclasses.asdict(plan), "tasks": numbers}
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    write_text(folder / "report.md", "\n".join(lines))


def plot_training_sizes(task: TaskPlan, evaluation: Evaluation, file: Path) -> None:
    """Best-of-n of the heads on fewer prompts and on all, with 95 % intervals, beside what needs no training."""
    measured = {few: evaluation.accuracy[f"head on {few} prompts"] for few in task.few_prompts}
    measured[task.train_prompts] = evaluation.accuracy["reward head"]
    sizes = sorted(measured)
    with save_figure(file) as axes:
        values = [100 * measured[size].value for size in sizes]
        below = [100 * (measured[size].value - measured[size].low) for size in sizes]
        above = [100 * (measured[size].high - measured[size].value) for size in sizes]
        axes.errorbar(sizes, values, [below, above], marker="o", capsize=3, label="reward head")
        for number, name in enumerate(("oracle", "mean log-probability", "majority vote", "single sample")):
            level = 100 * evaluation.accuracy[name].value
            axes.axhline(level, color=f"C{number + 1}", linestyle="--", label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xlabel(f"training prompts, with {evaluation.n} rollouts each")
        axes.set_ylabel(f"best of {evaluation.n} right, %")
        axes.set_title(f"{evaluation.task}: {evaluation.prompts} prompts ({evaluation.split})")
        axes.legend(loc="best")


def _parameters(folder: Path) -> int:
    """Of a head's reward, without the row for pruning; of a probe, without its layer's number; of a classifier, all."""
    tensors = load_file(folder / "model.safetensors")
    counted = [own for name, own in tensors.items() if not name.startswith("value_") and name != "layer"]
    return sum(tensor.numel() for tensor in counted)
