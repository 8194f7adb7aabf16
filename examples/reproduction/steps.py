"""The steps of a plan: sample, train, measure."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fine_tune_text_reward_model import fine_tune, rollouts_digest, write_whole
from safetensors.torch import load_file, save_file

from hf_elhsr import (
    ElhsrConfig,
    ElhsrRewardHead,
    Evaluation,
    LearnedCombination,
    Recording,
    RewardHeadTrainer,
    RewardHeadTrainingArguments,
    RolloutSet,
    Task,
    TextRewardModel,
    evaluate_rollouts,
    find_task,
    fit_combination,
    load_language_model,
    load_text_reward_model,
    sample_rollouts,
)
from hf_elhsr.models import base_model_id
from hf_elhsr.rewards import LastTokenProbe
from hf_elhsr.rollouts import Judge, by_prompt, parse_bytes, prompt_texts, score_rollout_texts, score_rollouts
from hf_elhsr.training import PromptGroups, train_last_token_probe

from .plan import SIGNAL_HEADS, Plan, TaskPlan
from .report import write_report


def is_done(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether a training's result exists, made as the plan now says.

    Raises:
        ValueError: It was made with different settings or rollouts.
    """
    file = folder / "training.json"
    if not file.is_file():
        return False
    record = json.loads(file.read_text())
    # As JSON has them: lists for tuples
    for name, value in json.loads(json.dumps(wanted)).items():
        if record.get(name) != value:
            raise ValueError(
                f"{str(folder)!r} was trained with {name} {record.get(name)}, and the plan says {value}: delete this "
                "folder to train again, or choose another one for the changed plan."
            )
    return True


def sampled(rollouts: RolloutSet) -> dict[str, Any]:
    """The settings that identify the rollouts something was trained on."""
    return {name: value for name, value in rollouts.settings.items() if name != "head_config"}


class Reproduction:
    """All steps of a plan; a step whose result is already in the folder is skipped."""

    def __init__(self, plan: Plan, folder: Path, wrap_task: Callable[[Task], Task] = lambda task: task):
        self.plan, self.folder = plan, folder
        self.model, self.tokenizer = load_language_model(plan.model, plan.dtype)
        self.tasks = {task.name: wrap_task(find_task(task.name)) for task in plan.tasks}

    def run(self) -> None:
        """Train everything, then measure everything, the heads of other tasks included."""
        for task in self.plan.tasks:
            self.train(task)
        heads = {task.name: self._head(task, "head") for task in self.plan.tasks}
        evaluations = {task.name: self.evaluate(task, heads) for task in self.plan.tasks}
        write_report(self.plan, self.folder, evaluations)

    def train(self, task: TaskPlan) -> None:
        """Train everything that learns from a task's training prompts."""
        folder = self.folder / task.folder
        rollouts = self._sample(task, "hidden_states", folder / "train")
        self._train_head(rollouts, folder / "head")
        for prompts in task.few_prompts:
            self._train_head(rollouts, folder / f"head_{prompts}_prompts", prompts=prompts)
        if task.few_layers:
            self._train_head(rollouts, folder / f"head_{len(task.few_layers)}_layers", layers=task.few_layers)
        self._train_probe(rollouts, folder / "probe")
        for signal in task.signals:
            self._train_head(self._sample(task, signal, folder / f"train_{signal}"), folder / f"head_{signal}")
        text_reward_model = folder / "text_reward_model"
        if epochs := task.text_reward_model_epochs:
            wanted = {"model": self.plan.model, "epochs": epochs, "rollouts": rollouts_digest(rollouts)}
            if not is_done(text_reward_model, wanted):
                fine_tune(rollouts, text_reward_model, self.plan.model, epochs=epochs)

    def evaluate(self, task: TaskPlan, heads: dict[str, ElhsrRewardHead]) -> Evaluation:
        """Evaluate all heads, probes and text reward models on the same rollouts of unseen prompts."""
        folder = self.folder / task.folder
        probe = load_file(folder / "probe" / "model.safetensors")
        judges: dict[str, Judge] = {
            "last-token probe": LastTokenProbe(int(probe["layer"]), probe["weight"], float(probe["bias"]))
        }
        judges |= {f"head on {few} prompts": self._head(task, f"head_{few}_prompts") for few in task.few_prompts}
        if few := len(task.few_layers):
            judges[f"head on {few} layers"] = self._head(task, f"head_{few}_layers")
        judges |= {SIGNAL_HEADS[signal]: self._head(task, f"head_{signal}") for signal in task.signals}
        judges |= {f"head of {name}": head for name, head in heads.items() if name != task.name}
        rollouts = sample_rollouts(
            self.model,
            self.tokenizer,
            self.tasks[task.name],
            folder / "test",
            split="test",
            prompts=task.test_prompts,
            skip=task.skip_test_prompts,
            arguments=self.plan.test_sampling,
            recording=Recording(head=heads[task.name], judges=judges),
        )
        if not task.text_reward_model_epochs:
            return evaluate_rollouts(rollouts)
        scorer, name = load_text_reward_model(str(folder / "text_reward_model"), self.plan.dtype)
        scores = score_rollout_texts(rollouts, self._prompts(task, "test"), scorer, name)
        return evaluate_rollouts(rollouts, scores, name, self._combination(task, heads[task.name], scorer))

    def _combination(self, task: TaskPlan, head: ElhsrRewardHead, scorer: TextRewardModel) -> LearnedCombination:
        """Combine head and text reward model, fitted on the held-out prompts, on which neither was trained."""
        rollouts = RolloutSet(self.folder / task.folder / "train")
        _, held_out = PromptGroups(rollouts).split(held_out=0.2, seed=0)
        wanted = set(held_out)
        groups = [own for shard, _ in rollouts.shards() for own in by_prompt(shard) if own[0].problem in wanted]
        prompts = self._prompts(task, "train")
        said = [
            scorer([prompts[own[0].problem]] * len(own), [rollout.text for rollout in own]).numpy() for own in groups
        ]
        scored = score_rollouts(rollouts, head, held_out, subsampled=True)
        return fit_combination(np.stack([scored.rewards, np.stack(said)], axis=-1), scored.labels)

    def _prompts(self, task: TaskPlan, split: str) -> dict[str, str]:
        count = task.train_prompts if split == "train" else task.skip_test_prompts + task.test_prompts
        return prompt_texts(self.tokenizer, self.tasks[task.name].problems(split, count))

    def _sample(self, task: TaskPlan, signal: str, folder: Path) -> RolloutSet:
        return sample_rollouts(
            self.model,
            self.tokenizer,
            self.tasks[task.name],
            folder,
            prompts=task.train_prompts,
            arguments=self.plan.train_sampling,
            recording=Recording(
                config=ElhsrConfig.for_model(self.model, base_model=base_model_id(self.plan.model), signal=signal),
                disk_budget=parse_bytes(self.plan.disk_budget),
            ),
        )

    def _train_head(self, rollouts: RolloutSet, folder: Path, **changes: Any) -> None:
        signal = rollouts.config.signal
        # The paper has a recipe for hidden states only
        chosen = RewardHeadTrainingArguments.preset(
            self.plan.preset if signal == "hidden_states" else "default", signal
        )
        settings = dataclasses.replace(chosen, **changes)
        made_from = {"settings": dataclasses.asdict(settings), "rollouts": sampled(rollouts)}
        if is_done(folder, made_from):
            return
        start = time.perf_counter()
        trainer = RewardHeadTrainer(rollouts, settings, checkpoint=folder / "checkpoint.safetensors")
        report = trainer.train()
        seconds = time.perf_counter() - start
        trainer.head.save_pretrained(folder)
        record = {**made_from, "report": dataclasses.asdict(report), "seconds": seconds}
        write_whole(folder / "training.json", json.dumps(record, indent=2) + "\n")
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)

    def _train_probe(self, rollouts: RolloutSet, folder: Path) -> None:
        made_from = {"rollouts": sampled(rollouts)}
        if is_done(folder, made_from):
            return
        start = time.perf_counter()
        probe = train_last_token_probe(rollouts)
        seconds = time.perf_counter() - start
        folder.mkdir(exist_ok=True)
        numbers = {"weight": probe.weight, "bias": torch.tensor(probe.bias), "layer": torch.tensor(probe.layer)}
        save_file(numbers, folder / "model.safetensors")
        # Written last: it says that the rest is complete
        write_whole(folder / "training.json", json.dumps({**made_from, "seconds": seconds}, indent=2) + "\n")

    def _head(self, task: TaskPlan, name: str) -> ElhsrRewardHead:
        return ElhsrRewardHead.from_pretrained(self.folder / task.folder / name)
