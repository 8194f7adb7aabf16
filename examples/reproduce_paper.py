"""The paper's comparison on one's own machine, from a configuration file.

    python examples/reproduce_paper.py examples/reproduction/small.json rollouts/reproduction
    python examples/reproduce_paper.py examples/reproduction/paper.json rollouts/paper --dry-run

For every task: rollouts with features, a reward head, heads on fewer prompts, heads that read other signals, a linear
probe of the last token and a fine-tuned text reward model, all from the same training prompts; then all of them, and
the heads of the other tasks, on the same rollouts of unseen prompts. The folder gets report.md with all tables and
report.json with all numbers. A run that was killed goes on with the same command.

--dry-run checks the model, the tasks and the disk, estimates what everything takes, and then rehearses every step with
a tiny random model of the same architecture, a few prompts and labels drawn at random.
"""

import argparse
import dataclasses
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fine_tune_text_reward_model import fine_tune
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hf_elhsr import ElhsrConfig, ElhsrRewardHead, LearnedCombination, fit_combination
from hf_elhsr.cli.demo_model import DEMO_MODEL, demo_model_folder
from hf_elhsr.cli.load_model import DTYPES, base_model_id, load_model, load_text_reward_model
from hf_elhsr.evaluation import Evaluation, evaluate_rollouts, evaluation_markdown, plot_evaluation
from hf_elhsr.evaluation.figures import save_figure
from hf_elhsr.rewards.last_token_probe import LastTokenProbe
from hf_elhsr.rewards.text_reward_model import TextScorer, text_scores
from hf_elhsr.rollouts import (
    Problem,
    RolloutSet,
    SamplingSettings,
    ScoredRollouts,
    Task,
    encode_prompts,
    sample_rollouts,
)
from hf_elhsr.rollouts.disk_budget import parse_bytes, plan_recording
from hf_elhsr.rollouts.rollout_set import by_prompt, write_text
from hf_elhsr.rollouts.sampling import Judge
from hf_elhsr.rollouts.tasks import find_task
from hf_elhsr.rollouts.text_scores import score_rollout_texts
from hf_elhsr.training import preset, train_head, train_last_token_probe
from hf_elhsr.training.prompt_groups import PromptGroups

NAMES = {"logits": "head on logits", "top_log_probabilities": "head on top-20 log-probabilities"}


@dataclasses.dataclass(frozen=True)
class TaskPlan:
    """What is done with one task.

    Args:
        name: As `hf-elhsr sample --task` takes it.
        skip_test_prompts: Leave out the first test prompts, which an earlier head was measured on.
        few_prompts: Heads on only so many of the training prompts are compared.
        signals: Other signals to train a head on.
        text_reward_model_epochs: Epochs of the text reward model; 0 for none.
    """

    name: str
    train_prompts: int
    test_prompts: int
    skip_test_prompts: int = 0
    few_prompts: tuple[int, ...] = ()
    signals: tuple[str, ...] = ()
    text_reward_model_epochs: int = 0

    @property
    def folder(self) -> str:
        """Its name as one folder."""
        return re.sub(r"\W+", "_", self.name)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A configuration file.

    Args:
        preset: Of the heads on hidden states, as `hf-elhsr train --preset` takes it.
        disk_budget: For the features of one set of training rollouts.
        tokens_per_second: That the model samples on this machine, all rows together; only for the estimates.
    """

    model: str
    dtype: str
    preset: str
    train_sampling: SamplingSettings
    test_sampling: SamplingSettings
    tasks: tuple[TaskPlan, ...]
    disk_budget: str
    tokens_per_second: float

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """What a configuration file says; an unknown or missing key is a TypeError that names it."""
        values = json.loads(text)
        for name in ("train_sampling", "test_sampling"):
            values[name] = SamplingSettings(**values[name])
        values["tasks"] = tuple(TaskPlan(**task) for task in values["tasks"])
        return cls(**values)


class Reproduction:
    """All steps of a plan, each of which is passed over where its result is in the folder already."""

    def __init__(self, plan: Plan, folder: Path, wrap_task: Callable[[Task], Task] = lambda task: task):
        self.plan, self.folder = plan, folder
        self.model, self.tokenizer = load_model(plan.model, plan.dtype)
        self.tasks = {task.name: wrap_task(find_task(task.name)) for task in plan.tasks}

    def run(self) -> None:
        """Train everything, then measure everything: the heads of other tasks are measured, too."""
        for task in self.plan.tasks:
            self.train(task)
        heads = {task.name: self._head(task, "head") for task in self.plan.tasks}
        evaluations = {task.name: self.evaluate(task, heads) for task in self.plan.tasks}
        self.report(evaluations)

    def train(self, task: TaskPlan) -> None:
        """Everything that learns from a task's training prompts."""
        folder = self.folder / task.folder
        rollouts = self._sample(task, "hidden_states", folder / "train")
        self._train_head(rollouts, folder / "head", None)
        for prompts in task.few_prompts:
            self._train_head(rollouts, folder / f"head_{prompts}_prompts", prompts)
        if not (folder / "probe.safetensors").is_file():
            probe = train_last_token_probe(rollouts)
            numbers = {"weight": probe.weight, "bias": torch.tensor(probe.bias), "layer": torch.tensor(probe.layer)}
            save_file(numbers, folder / "probe.partial")
            (folder / "probe.partial").rename(folder / "probe.safetensors")
        for signal in task.signals:
            self._train_head(self._sample(task, signal, folder / f"train_{signal}"), folder / f"head_{signal}", None)
        text_reward_model = folder / "text_reward_model"
        if task.text_reward_model_epochs and not (text_reward_model / "training.json").is_file():
            fine_tune(rollouts, text_reward_model, self.plan.model, epochs=task.text_reward_model_epochs)

    def evaluate(self, task: TaskPlan, heads: dict[str, ElhsrRewardHead]) -> Evaluation:
        """All judges on the same rollouts of unseen prompts."""
        folder = self.folder / task.folder
        probe = load_file(folder / "probe.safetensors")
        judges: dict[str, Judge] = {
            "last-token probe": LastTokenProbe(int(probe["layer"]), probe["weight"], float(probe["bias"]))
        }
        judges |= {f"head on {few} prompts": self._head(task, f"head_{few}_prompts") for few in task.few_prompts}
        judges |= {NAMES[signal]: self._head(task, f"head_{signal}") for signal in task.signals}
        judges |= {f"head of {name}": head for name, head in heads.items() if name != task.name}
        rollouts = sample_rollouts(
            self.model,
            self.tokenizer,
            self.tasks[task.name],
            "test",
            task.test_prompts,
            folder / "test",
            self.plan.test_sampling,
            head=heads[task.name],
            skip=task.skip_test_prompts,
            judges=judges,
        )
        if not task.text_reward_model_epochs:
            return evaluate_rollouts(rollouts)
        scorer, name = load_text_reward_model(str(folder / "text_reward_model"), self.plan.dtype)
        scores = score_rollout_texts(rollouts, self._prompts(task, "test"), scorer, name)
        return evaluate_rollouts(rollouts, scores, name, self._combination(task, heads[task.name], scorer))

    def _combination(self, task: TaskPlan, head: ElhsrRewardHead, scorer: TextScorer) -> LearnedCombination:
        """Of head and text reward model, fitted on the held-out prompts, which taught the weights of neither."""
        rollouts = RolloutSet(self.folder / task.folder / "train")
        _, held_out = PromptGroups(rollouts).split(held_out=0.2, seed=0)
        wanted = set(held_out)
        groups = [own for shard, _ in rollouts.shards() for own in by_prompt(shard) if own[0].problem in wanted]
        prompts = self._prompts(task, "train")
        said = [
            text_scores(scorer, [prompts[own[0].problem]] * len(own), [rollout.text for rollout in own]).numpy()
            for own in groups
        ]
        scored = ScoredRollouts.from_rollouts(rollouts, head, held_out, subsampled=True)
        return fit_combination(np.stack([scored.rewards, np.stack(said)], axis=-1), scored.labels)

    def _prompts(self, task: TaskPlan, split: str) -> dict[str, str]:
        """By the problem's id, what the language model is given."""
        count = task.train_prompts if split == "train" else task.skip_test_prompts + task.test_prompts
        return {
            problem.id: self.tokenizer.decode(encode_prompts(self.tokenizer, [problem.question])["input_ids"][0])
            for problem in self.tasks[task.name].problems(split, count)
        }

    def report(self, evaluations: dict[str, Evaluation]) -> None:
        """Write report.md, report.json and a plot for every task."""
        train = self.plan.train_sampling
        lines = [
            f"# The comparison of arXiv:2505.12225, with {self.plan.model}",
            "",
            "Made by `examples/reproduce_paper.py`. Everything that is trained learns from the same "
            f"{train.n} rollouts a prompt, a fifth of the prompts held out; everything is measured on the same "
            "rollouts of unseen prompts. The reward head is the one trained on the task's hidden states. "
            "`report.json` has all numbers.",
            "",
        ]
        numbers = {}
        for task in self.plan.tasks:
            evaluation, folder = evaluations[task.name], self.folder / task.folder
            training = {
                file.parent.name: json.loads(file.read_text()) for file in sorted(folder.glob("*/training.json"))
            }
            # What a classifier's training took before it was killed, if it was, is not counted
            seconds = {
                n: record.get("seconds", record.get("seconds_since_last_start")) for n, record in training.items()
            }
            parameters = {name: _parameters(folder / name) for name in training}
            numbers[task.name] = {
                "evaluation": json.loads(evaluation.to_json()),
                "training_seconds": seconds,
                "parameters": parameters,
            }
            plot_evaluation(evaluation, folder / "evaluation.svg")
            lines += [f"## {task.name}: {task.train_prompts} training prompts", "", evaluation_markdown(evaluation), ""]
            lines += ["| trained | parameters | training, s |", "|---|---:|---:|"]
            lines += [f"| {name} | {parameters[name]:,} | {seconds[name]:,.0f} |" for name in seconds]
            lines += ["", f"![Accuracy by number of candidates]({task.folder}/evaluation.svg)", ""]
            if task.few_prompts:
                plot_training_sizes(task, evaluation, folder / "training_size.svg")
                lines += [f"![Accuracy by training prompts]({task.folder}/training_size.svg)", ""]
        report = {"plan": dataclasses.asdict(self.plan), "tasks": numbers}
        write_text(self.folder / "report.json", json.dumps(report, indent=2) + "\n")
        write_text(self.folder / "report.md", "\n".join(lines))

    def _sample(self, task: TaskPlan, signal: str, folder: Path) -> RolloutSet:
        return sample_rollouts(
            self.model,
            self.tokenizer,
            self.tasks[task.name],
            "train",
            task.train_prompts,
            folder,
            self.plan.train_sampling,
            config=ElhsrConfig.for_model(self.model, base_model=base_model_id(self.plan.model), signal=signal),
            disk_budget=parse_bytes(self.plan.disk_budget),
        )

    def _train_head(self, rollouts: RolloutSet, folder: Path, prompts: int | None) -> None:
        if (folder / "training.json").is_file():
            return
        signal = rollouts.config.signal
        # The paper has a recipe for hidden states alone
        chosen = preset(self.plan.preset if signal == "hidden_states" else "default", signal)
        settings = dataclasses.replace(chosen, prompts=prompts)
        start = time.perf_counter()
        head, report = train_head(rollouts, settings, checkpoint=folder / "checkpoint.safetensors")
        seconds = time.perf_counter() - start
        head.save_pretrained(folder)
        record = {
            "settings": dataclasses.asdict(settings),
            "report": dataclasses.asdict(report),
            "seconds": seconds,
        }
        write_text(folder / "training.json", json.dumps(record, indent=2) + "\n")

    def _head(self, task: TaskPlan, name: str) -> ElhsrRewardHead:
        return ElhsrRewardHead.from_pretrained(self.folder / task.folder / name)


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
    """Of a head's reward, without the row for pruning; of a classifier, all."""
    tensors = load_file(folder / "model.safetensors")
    return sum(tensor.numel() for name, tensor in tensors.items() if not name.startswith("value_"))


def estimate(plan: Plan) -> list[str]:
    """Check model, tasks and disk, and say what every step takes at most.

    Raises:
        OSError: The model or a dataset cannot be found.
        ValueError: A task has too few prompts, the disk budget is too small for anything, or the disk for the budget.
    """
    source = demo_model_folder() if plan.model == DEMO_MODEL else plan.model
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source), dtype=DTYPES[plan.dtype])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = [f"{plan.model}: {parameters:,} parameters, {parameters * model.dtype.itemsize / 1e9:.1f} GB of weights"]
    disk, hours = 0, 0.0
    for task in plan.tasks:
        problems = find_task(task.name)
        problems.problems("train", task.train_prompts)
        problems.problems("test", task.skip_test_prompts + task.test_prompts)
        train, test = plan.train_sampling, plan.test_sampling
        for signal in ("hidden_states", *task.signals):
            config = _described_head(model, signal)
            recording = plan_recording(
                config, model.dtype, task.train_prompts * train.n, train.max_new_tokens, parse_bytes(plan.disk_budget)
            )
            tokens = task.train_prompts * train.n * train.max_new_tokens
            disk, hours = disk + recording.num_bytes, hours + tokens / plan.tokens_per_second / 3600
            kept = f"1 token in {recording.every}" if recording.every > 1 else "all tokens"
            lines.append(
                f"{task.name}, {signal}: {task.train_prompts} x {train.n} rollouts, at most {tokens:,} tokens, "
                f"{tokens / plan.tokens_per_second / 3600:.1f} h, {recording.num_bytes / 1e9:,.1f} GB ({kept}"
                + (f", {len(recording.config.layers)} of {len(config.layers)} layers)" if config.layers else ")")
            )
        tokens = task.test_prompts * test.n * test.max_new_tokens
        # Token arrays: r_t, g_t, log p_t and v_t in float32
        disk, hours = disk + 16 * tokens, hours + tokens / plan.tokens_per_second / 3600
        lines.append(
            f"{task.name}, test: {task.test_prompts} x {test.n} rollouts, at most {tokens:,} tokens, "
            f"{tokens / plan.tokens_per_second / 3600:.1f} h, {16 * tokens / 1e9:,.1f} GB"
        )
    lines.append(f"Sampling, which takes most of the time: at most {hours:.1f} h. Disk: at most {disk / 1e9:,.1f} GB.")
    return lines


def _described_head(model: Any, signal: str) -> ElhsrConfig:
    """As large as the head that [`ElhsrConfig.for_model`] describes, which needs weights."""
    config = model.config.get_text_config(decoder=True)
    return ElhsrConfig(
        signal=signal,
        hidden_size=config.hidden_size,
        layers=list(range(config.num_hidden_layers + 1)) if signal == "hidden_states" else [],
        base_vocab_size=config.vocab_size,
        num_log_probabilities=20 if signal == "top_log_probabilities" else None,
    )


class RandomLabels:
    """A task whose verifier tosses a coin: a random model solves nothing, and training needs both labels."""

    def __init__(self, task: Task):
        self._task, self.name, self.splits = task, task.name, task.splits
        self._generator = torch.Generator().manual_seed(0)

    def problems(self, split: str, count: int, seed: int = 0) -> list[Problem]:
        return self._task.problems(split, count, seed)

    def extract(self, completion: str) -> str | None:
        return self._task.extract(completion)

    def verify(self, problem: Problem, completion: str) -> bool:
        return bool(torch.rand((), generator=self._generator) < 0.5)


def rehearse(plan: Plan, folder: Path) -> None:
    """Run every step of the plan with a tiny random model of its architecture, a few prompts and random labels."""
    source = demo_model_folder() if plan.model == DEMO_MODEL else plan.model
    config = AutoConfig.from_pretrained(source)
    small = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    for name, value in (small | {"num_hidden_layers": 2, "head_dim": 16}).items():
        if hasattr(config, name):
            setattr(config, name, value)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(source).save_pretrained(folder / "model")

    def shorter(sampling: SamplingSettings) -> SamplingSettings:
        return dataclasses.replace(sampling, n=min(sampling.n, 4), max_new_tokens=8)

    tasks = tuple(
        dataclasses.replace(
            task,
            train_prompts=20,
            test_prompts=8,
            few_prompts=tuple(15 for _ in task.few_prompts[:1]),
            text_reward_model_epochs=min(task.text_reward_model_epochs, 1),
        )
        for task in plan.tasks
    )
    tiny = dataclasses.replace(
        plan,
        model=str(folder / "model"),
        dtype="float32",
        train_sampling=shorter(plan.train_sampling),
        test_sampling=shorter(plan.test_sampling),
        tasks=tasks,
    )
    Reproduction(tiny, folder / "steps", RandomLabels).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="a file as in examples/reproduction")
    parser.add_argument("folder", type=Path, help="for rollouts, heads and the report")
    parser.add_argument(
        "--dry-run", action="store_true", help="check, estimate and rehearse every step; sample nothing"
    )
    args = parser.parse_args()
    plan = Plan.from_json(args.plan.read_text())
    if not args.dry_run:
        Reproduction(plan, args.folder).run()
        print((args.folder / "report.md").read_text())
        return
    print("\n".join(estimate(plan)))
    existing = next(parent for parent in (args.folder.absolute(), *args.folder.absolute().parents) if parent.exists())
    print(f"Free on the disk of {args.folder}: {shutil.disk_usage(existing).free / 1e9:,.1f} GB.")
    with tempfile.TemporaryDirectory() as folder:
        rehearse(plan, Path(folder))
    print("Every step ran in rehearsal.")


if __name__ == "__main__":
    sys.exit(main())
