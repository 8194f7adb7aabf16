"""`hf-elhsr sample`."""

import dataclasses
from typing import Annotated, Any

import typer

from ..head.configuration_elhsr import ElhsrConfig, signal_class
from ..head.loading import load_reward_head
from ..models import check_dtype
from ..rollouts import Recording, SamplingArguments, TransformersEngine, sample_rollouts
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
    SkipOverlong,
    Split,
    SystemPrompt,
    Task,
    Temperature,
    TemplateOption,
    TopP,
    Verifier,
    prompt_format,
    recorded_base_model,
)
from .paths import check_folder, expanded
from .result import show_rollouts
from .sampler import load_sampler


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
    skip_overlong: SkipOverlong = False,
    system_prompt: SystemPrompt = None,
    template_option: TemplateOption = None,
    seed: Seed = 0,
    dtype: Dtype = "bfloat16",
    signal: Signal = None,
    pooled_by: Annotated[
        str | None,
        typer.Option(
            help="Record features pooled by this head's gates, for `refit`; they take far less space.",
            callback=expanded,
        ),
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
    if signal is not None:
        signal_class(signal)
    told = prompt_format(system_prompt, template_option)
    # Mistakes are told before the model is loaded, which can take minutes
    check_dtype(dtype)
    problems = find_task(task, verifier, extract)
    problems.problems(split, skip + prompts)
    gates = None if pooled_by is None else load_reward_head(pooled_by)
    recording = Recording(head=gates, pooled=gates is not None, disk_budget=budget)
    base_model = base_model if pooled_by is not None else recorded_base_model(model, base_model)
    check_folder(out)
    language_model, tokenizer = load_sampler(model, dtype)
    read: dict[str, Any] = {} if signal is None else {"signal": signal}
    config = ElhsrConfig.for_model(language_model, base_model=base_model, **read)
    sampled = sample_rollouts(
        TransformersEngine(language_model, tokenizer, told),
        None,
        problems,
        out,
        split=split,
        prompts=prompts,
        skip=skip,
        arguments=arguments,
        recording=dataclasses.replace(recording, config=config),
        skip_overlong=skip_overlong,
    )
    show_rollouts(as_json, sampled, {})
