"""`hf-elhsr evaluate`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from transformers.utils import logging

from .._files import write_text
from ..evaluation import Evaluation, evaluate_rollouts, evaluation_markdown, plot_evaluation
from ..evaluation.report import check_figure
from ..head.loading import load_reward_head
from ..hub.measurements import write_measurement
from ..hub.record import OTHER_ROWS, TrainingRecord
from ..models import check_dtype, check_text_reward_model, load_text_reward_model
from ..rollouts import Recording, SamplingArguments, TransformersEngine, prompt_texts, sample_rollouts
from ..rollouts.text_scores import score_rollout_texts
from ..tasks import find_task
from .options import (
    Dtype,
    Extract,
    Head,
    Json,
    MaxNewTokens,
    MeasuredPrompts,
    Model,
    N,
    NumbersFile,
    PlotFile,
    RolloutsFolder,
    Seed,
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
)
from .paths import check_file, check_folder, expanded
from .result import show
from .sampler import load_sampler
from .terminal_tables import evaluation_table, explain_columns

logger = logging.get_logger(__name__)


def evaluate(
    out: RolloutsFolder,
    model: Model,
    head: Head,
    task: Task = "arithmetic",
    verifier: Verifier = None,
    extract: Extract = None,
    split: Split = "test",
    prompts: MeasuredPrompts = 400,
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
    text_reward_model: Annotated[
        str | None,
        typer.Option(
            help="Also measure a sequence classifier that reads the text, alone and combined with the head.",
            callback=expanded,
        ),
    ] = None,
    numbers_file: NumbersFile = None,
    markdown_file: Annotated[
        Path | None,
        typer.Option(
            "--markdown", help="Also write the tables to this file, in the form of a model card.", callback=expanded
        ),
    ] = None,
    plot_file: PlotFile = None,
    as_json: Json = False,
) -> None:
    """Measure best-of-n on unseen prompts, against baselines.

    With 95 % intervals. If an evaluation is stopped, running the same command again resumes it. `hf-elhsr card`
    reports what --numbers writes to evaluation/*.json in the head's folder.
    """
    # Mistakes are told before the model is loaded, which can take minutes, and before all the sampling
    if plot_file is not None:
        check_figure(plot_file)
    arguments = SamplingArguments(n=n, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
    told = prompt_format(system_prompt, template_option)
    check_dtype(dtype)
    problems = find_task(task, verifier, extract)
    chosen = problems.problems(split, skip + prompts)[skip:]
    reward_head = load_reward_head(head)
    if text_reward_model is not None:
        check_text_reward_model(text_reward_model)
    check_folder(out)
    for file in (numbers_file, markdown_file, plot_file):
        check_file(file)
    asked = {"task": problems.name, "split": split, "skip": skip, "prompts": prompts}
    record = TrainingRecord.read(Path(head))
    if record.order_changed(asked | {"labelled_by": getattr(problems, "labelled_by", None)}):
        logger.warning(f"{OTHER_ROWS} The head may select better here than elsewhere.")
    elif record.known_as(asked) == "trained":
        logger.warning(
            f"The head in {head!r} was trained on some of these prompts, where it selects better than elsewhere: "
            "sample different prompts, e.g. with --split or --skip."
        )
    language_model, tokenizer = load_sampler(model, dtype)
    rollouts = sample_rollouts(
        TransformersEngine(language_model, tokenizer, told),
        None,
        problems,
        out,
        split=split,
        prompts=prompts,
        skip=skip,
        arguments=arguments,
        recording=Recording(head=reward_head),
        skip_overlong=skip_overlong,
    )
    text_scores, name = None, None
    if text_reward_model is not None:
        texts = prompt_texts(tokenizer, chosen, told)
        scorer, name = load_text_reward_model(text_reward_model, dtype)
        text_scores = score_rollout_texts(rollouts, texts, scorer, name)
    evaluation: Evaluation = evaluate_rollouts(rollouts, text_scores, name)
    for file in (markdown_file, plot_file):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    if numbers_file is not None:
        write_measurement(numbers_file, evaluation)
    if markdown_file is not None:
        write_text(markdown_file, evaluation_markdown(evaluation) + "\n")
    if plot_file is not None:
        plot_evaluation(evaluation, plot_file)
    show(as_json, dataclasses.asdict(evaluation), evaluation_table(evaluation), explain_columns(evaluation))
