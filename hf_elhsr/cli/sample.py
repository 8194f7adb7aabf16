"""The commands that make rollouts: sample, relabel."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..head.configuration_elhsr import ElhsrConfig
from ..head.modeling_elhsr import load_reward_head
from ..models import load_language_model
from ..rollouts import Recording, RolloutSet, SamplingArguments, relabel_rollouts, sample_rollouts
from ..rollouts.disk_budget import parse_bytes
from ..tasks import find_task
from .options import (
    BaseModel,
    Dtype,
    Extract,
    Json,
    MaxNewTokens,
    Model,
    N,
    Prompts,
    RolloutsFolder,
    Seed,
    Signal,
    Skip,
    Split,
    Task,
    Temperature,
    TopP,
    Verifier,
    recorded_base_model,
)
from .result import show


def sample(
    out: RolloutsFolder,
    model: Model,
    base_model: BaseModel = None,
    task: Task = "arithmetic",
    verifier: Verifier = None,
    extract: Extract = None,
    split: Split = "train",
    prompts: Prompts = 400,
    skip: Skip = 0,
    n: N = 8,
    temperature: Temperature = 0.8,
    top_p: TopP = 0.9,
    max_new_tokens: MaxNewTokens = 64,
    seed: Seed = 0,
    dtype: Dtype = "bfloat16",
    signal: Signal = "hidden_states",
    pooled_by: Annotated[
        str | None, typer.Option(help="Record features pooled by this head's gates, for `refit`: far less to store.")
    ] = None,
    disk_budget: Annotated[
        str | None, typer.Option(help="Room for the features, as 50GB; tokens and then layers are left out to fit.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sample rollouts: completions, labels and features in one pass.

    A sampling that was stopped goes on where it was, when the same command is given again.
    """
    arguments = SamplingArguments(n=n, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
    budget = None if disk_budget is None else parse_bytes(disk_budget)
    if pooled_by is not None and base_model is not None:
        raise ValueError("--base-model and --pooled-by: leave out --base-model, which the head knows.")
    language_model, tokenizer = load_language_model(model, dtype)
    base_model = base_model if pooled_by is not None else recorded_base_model(model, base_model)
    gates = None if pooled_by is None else load_reward_head(pooled_by)
    if gates is not None and signal not in ("hidden_states", gates.config.signal):
        raise ValueError(
            f"--signal {signal} and --pooled-by a head that reads {gates.config.signal}: leave out --signal, which the "
            "head knows."
        )
    sampled = sample_rollouts(
        language_model,
        tokenizer,
        find_task(task, verifier, extract),
        out,
        split=split,
        prompts=prompts,
        skip=skip,
        arguments=arguments,
        recording=Recording(
            head=gates,
            config=ElhsrConfig.for_model(language_model, base_model=base_model, signal=signal),
            pooled=gates is not None,
            disk_budget=budget,
        ),
    )
    _show_rollouts(as_json, sampled, {})


def relabel(
    rollouts: Annotated[Path, typer.Argument(help="Folder made by `hf-elhsr sample` or `evaluate`.")],
    task: Task,
    verifier: Verifier = None,
    extract: Extract = None,
    as_json: Json = False,
) -> None:
    """Judge rollouts anew, with a mended verifier.

    Nothing is sampled, and features stay. One that was stopped starts anew, when the same command is given again; until
    then the rollouts are refused.
    """
    before = [rollout.label for rollout in RolloutSet(rollouts).rollouts()]
    judged = relabel_rollouts(rollouts, find_task(task, verifier, extract))
    after = [rollout.label for rollout in judged.rollouts()]
    changed = sum(one != other for one, other in zip(before, after, strict=True))
    _show_rollouts(as_json, judged, {"changed": changed})


def _show_rollouts(as_json: bool, rollout_set: RolloutSet, more: dict[str, int]) -> None:
    rollouts = rollout_set.rollouts()
    prompts = len({rollout.problem for rollout in rollouts})
    right = sum(rollout.label is True for rollout in rollouts)
    failed = [rollout.verifier_failure for rollout in rollouts if rollout.label is None]
    counts = "".join(f", {number} {name}" for name, number in more.items())
    show(
        as_json,
        {
            "folder": str(rollout_set.folder),
            "prompts": prompts,
            "rollouts": len(rollouts),
            "right": right,
            "verifier_failures": failed,
            **more,
        },
        f"{len(rollouts)} rollouts of {prompts} prompts in {escape(str(rollout_set.folder))}, "
        f"{right / max(1, len(rollouts) - len(failed)):.1%} right{counts}"
        + (f"; the verifier failed on {len(failed)}, first with: {escape(str(failed[0]))}" if failed else "."),
    )
