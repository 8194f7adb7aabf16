"""`hf-elhsr sample`."""

from typing import Annotated, Any

import typer

from ..head.configuration_elhsr import ElhsrConfig
from ..head.loading import load_reward_head
from ..models import load_language_model
from ..rollouts import Recording, SamplingArguments, sample_rollouts
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
from .result import show_rollouts


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
    signal: Signal = None,
    pooled_by: Annotated[
        str | None,
        typer.Option(help="Record features pooled by this head's gates, for `refit`; they take far less space."),
    ] = None,
    disk_budget: Annotated[
        str | None,
        typer.Option(help="Disk space for the features, e.g. 50GB; tokens and then layers are left out to fit."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sample rollouts: completions, labels and features in one pass.

    If sampling is stopped, running the same command again resumes it.
    """
    arguments = SamplingArguments(n=n, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
    budget = None if disk_budget is None else parse_bytes(disk_budget)
    for option, value in (("--base-model", base_model), ("--signal", signal)):
        if pooled_by is not None and value is not None:
            raise ValueError(f"{option} and --pooled-by: leave out {option}, which the head determines.")
    language_model, tokenizer = load_language_model(model, dtype)
    base_model = base_model if pooled_by is not None else recorded_base_model(model, base_model)
    gates = None if pooled_by is None else load_reward_head(pooled_by)
    read: dict[str, Any] = {} if signal is None else {"signal": signal}
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
            config=ElhsrConfig.for_model(language_model, base_model=base_model, **read),
            pooled=gates is not None,
            disk_budget=budget,
        ),
    )
    show_rollouts(as_json, sampled, {})
