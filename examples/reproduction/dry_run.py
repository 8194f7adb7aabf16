"""The dry run: estimates what a plan will take, and rehearses every step."""

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hf_elhsr import ElhsrConfig, SamplingArguments, find_task
from hf_elhsr.models import DEMO_MODEL, DTYPES, demo_model_folder
from hf_elhsr.rollouts import parse_bytes, plan_recording

from .plan import Plan
from .random_labels import RandomLabels
from .steps import Reproduction

# Bytes per parameter: float32 weights at the end, and three checkpoints with AdamW's two moments meanwhile
_TEXT_REWARD_MODEL = 4 + 3 * 12


def dry_run(plan: Plan, folder: Path) -> Iterator[str]:
    """Estimate, check the disk, and rehearse; yields what to report, line by line.

    Raises:
        OSError: The model or a dataset cannot be found.
        ValueError: A task has too few prompts, the disk budget is too small for anything, or the disk for the plan.
    """
    lines, disk = estimate(plan)
    yield from lines
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if disk > free:
        raise ValueError(
            f"The plan may take {disk / 1e9:,.1f} GB, and the disk of {str(folder)!r} has {free / 1e9:,.1f} GB left: "
            "lower disk_budget, or choose a folder on another disk."
        )
    with tempfile.TemporaryDirectory() as scratch:
        Reproduction(rehearsal(plan, Path(scratch)), Path(scratch) / "steps", RandomLabels).run()
    yield "Every step ran in rehearsal."


def estimate(plan: Plan) -> tuple[list[str], int]:
    """Return what sampling takes at most, line by line, and the bytes of everything."""
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
                config,
                config.reads.recorded_dtype(model),
                task.train_prompts * train.n,
                train.max_new_tokens,
                parse_bytes(plan.disk_budget),
            )
            missing = sorted(set(task.few_layers) - set(recording.config.layers))
            if missing and signal == "hidden_states":
                raise ValueError(
                    f"few_layers {list(task.few_layers)} of task {task.name!r}: layers {missing} are not among those "
                    f"recorded, {recording.config.layers}: choose among these, or raise disk_budget."
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
        if task.text_reward_model_epochs:
            disk += _TEXT_REWARD_MODEL * parameters
            lines.append(
                f"{task.name}, text reward model: {_TEXT_REWARD_MODEL * parameters / 1e9:,.1f} GB while it trains"
            )
    lines.append(
        f"In all: at most {hours:.1f} h of sampling, with {plan.tokens_per_second:g} tokens a second, and "
        f"{disk / 1e9:,.1f} GB. Training comes on top."
    )
    return lines, disk


def _described_head(model: Any, signal: str) -> ElhsrConfig:
    """Describe a head of the size of [`ElhsrConfig.for_model`]'s, which needs weights."""
    config = model.config.get_text_config(decoder=True)
    return ElhsrConfig(
        signal=signal,
        hidden_size=config.hidden_size,
        layers=list(range(config.num_hidden_layers + 1)) if signal == "hidden_states" else [],
        base_vocab_size=config.vocab_size,
        num_log_probabilities=20 if signal == "top_log_probabilities" else None,
    )


def rehearsal(plan: Plan, folder: Path) -> Plan:
    """Shrink the plan to a few prompts and a tiny random model of its architecture, which is written to the folder."""
    source = demo_model_folder() if plan.model == DEMO_MODEL else plan.model
    config = AutoConfig.from_pretrained(source)
    _shrink(config.get_text_config(decoder=True))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(source).save_pretrained(folder / "model")

    def shorter(sampling: SamplingArguments) -> SamplingArguments:
        return dataclasses.replace(sampling, n=min(sampling.n, 4), max_new_tokens=8)

    tasks = tuple(
        dataclasses.replace(
            task,
            train_prompts=20,
            test_prompts=8,
            few_prompts=tuple(range(15, 15 + len(task.few_prompts))),
            few_layers=(0, 2) if task.few_layers else (),
            text_reward_model_epochs=min(task.text_reward_model_epochs, 1),
        )
        for task in plan.tasks
    )
    return dataclasses.replace(
        plan,
        model=str(folder / "model"),
        dtype="float32",
        train_sampling=shorter(plan.train_sampling),
        test_sampling=shorter(plan.test_sampling),
        tasks=tasks,
    )


def _shrink(config: Any) -> None:
    layers = config.num_hidden_layers
    small = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    for name, value in vars(config).items():
        # A value for every layer, as layer_types
        if isinstance(value, list) and len(value) == layers:
            small[name] = value[:2]
    for name, value in (small | {"num_hidden_layers": 2, "head_dim": 16}).items():
        if hasattr(config, name):
            setattr(config, name, value)
