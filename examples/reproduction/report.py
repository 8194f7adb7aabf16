"""report.md, report.json and plots of a reproduction."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from fine_tune_text_reward_model import write_whole
from safetensors.torch import load_file

from hf_elhsr import Evaluation
from hf_elhsr.evaluation import evaluation_markdown, plot_evaluation, save_figure

from .plan import Plan, TaskPlan


def write_report(plan: Plan, folder: Path, evaluations: dict[str, Evaluation]) -> None:
    """Write report.json, and from it report.md and a plot for every task."""
    tasks = {}
    for task in plan.tasks:
        own = folder / task.folder
        # Only what the plan trains: an earlier plan may have trained more
        training = {name: json.loads((own / name / "training.json").read_text()) for name in task.trained}
        # The time that a classifier trained before it was killed, if it was, is not counted
        seconds = {n: record.get("seconds", record.get("seconds_since_last_start")) for n, record in training.items()}
        tasks[task.name] = {
            "evaluation": json.loads(evaluations[task.name].to_json()),
            "training_seconds": seconds,
            "parameters": {name: _parameters(own / name) for name in training},
        }
    report = {"plan": dataclasses.asdict(plan), "tasks": tasks}
    write_whole(folder / "report.json", json.dumps(report, indent=2) + "\n")
    write_pages(report, folder)


def write_pages(report: dict[str, Any], folder: Path) -> None:
    """Write report.md and the plots of what report.json holds."""
    plan = Plan.from_json(json.dumps(report["plan"]))
    write_whole(folder / "report.md", report_markdown(report))
    for task in plan.tasks:
        evaluation = Evaluation.from_json(json.dumps(report["tasks"][task.name]["evaluation"]))
        plot_evaluation(evaluation, folder / task.folder / "evaluation.svg")
        if task.few_prompts:
            plot_training_sizes(task, evaluation, folder / task.folder / "training_size.svg")


def report_markdown(report: dict[str, Any]) -> str:
    """The page report.md of what report.json holds."""
    plan = Plan.from_json(json.dumps(report["plan"]))
    lines = [
        f"# The comparison of arXiv:2505.12225, with {plan.model}",
        "",
        "By `examples/reproduce_paper.py`. Everything that is trained learns from the same "
        f"{plan.train_sampling.n} rollouts a prompt, a fifth of the prompts held out; everything is measured on the "
        "same rollouts of unseen prompts. The reward head is the one trained on the task's hidden states. "
        "`report.json` has all numbers.",
        "",
    ]
    for task in plan.tasks:
        numbers = report["tasks"][task.name]
        evaluation = Evaluation.from_json(json.dumps(numbers["evaluation"]))
        lines += [f"## {task.name}: {task.train_prompts} training prompts", "", evaluation_markdown(evaluation), ""]
        if task.few_layers:
            layers = ", ".join(map(str, task.few_layers))
            lines += [f"The head on {len(task.few_layers)} layers reads `hidden_states` {layers}.", ""]
        lines += ["| trained | parameters | training, s |", "|---|---:|---:|"]
        parameters, seconds = numbers["parameters"], numbers["training_seconds"]
        lines += [f"| {name} | {parameters[name]:,} | {seconds[name]:,.0f} |" for name in seconds]
        lines += ["", f"![Accuracy by number of candidates]({task.folder}/evaluation.svg)", ""]
        if task.few_prompts:
            lines += [f"![Accuracy by training prompts]({task.folder}/training_size.svg)", ""]
    return "\n".join(lines)


def plot_training_sizes(task: TaskPlan, evaluation: Evaluation, file: Path) -> None:
    """Plot best-of-n of the heads on fewer prompts and on all, with 95 % intervals, and of what needs no training."""
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
        axes.set_ylabel(f"best of {evaluation.n} correct, %")
        axes.set_title(f"{evaluation.task}: {evaluation.prompts} prompts ({evaluation.split})")
        axes.legend(loc="best")


def _parameters(folder: Path) -> int:
    """Count parameters: a head's without the row for pruning, a probe's without its layer's number."""
    tensors = load_file(folder / "model.safetensors")
    counted = [own for name, own in tensors.items() if not name.startswith("value_") and name != "layer"]
    return sum(tensor.numel() for tensor in counted)
