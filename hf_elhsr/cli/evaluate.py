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
from ..models import load_language_model, load_text_reward_model
from ..rollouts import Recording, SamplingArguments, prompt_texts, sample_rollouts
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
    Split,
    Task,
    Temperature,
    TopP,
    Verifier,
)
from .result import show
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
    seed: Seed = 0,
    dtype: Dtype = "bfloat16",
    text_reward_model: Annotated[
        str | None,
        typer.Option(help="Also measure a sequence classifier that reads the text, alone and combined with the head."),
    ] = None,
    numbers_file: NumbersFile = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Also write the tables to this file, in the form of a model card.")
    ] = None,
    plot_file: PlotFile = None,
    as_json: Json = False,
) -> None:
    """Measure best-of-n on unseen prompts, against baselines.

    With 95 % intervals. If an evaluation is stopped, running the same command again resumes it. `hf-elhsr card`
    reports what --numbers writes to evaluation/*.json in the head's folder.
    """
    # Checked before all the sampling
    if plot_file is not None:
        check_figure(plot_file)
    arguments = SamplingArguments(n=n, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
    language_model, tokenizer = load_language_model(model, dtype)
    problems = find_task(task, verifier, extract)
    asked = {"task": problems.name, "split": split, "skip": skip, "prompts": prompts}
    record = TrainingRecord.read(Path(head))
    if record.order_changed(asked | {"labelled_by": getattr(problems, "labelled_by", None)}):
        logger.warning(f"{OTHER_ROWS} The head may select better here than elsewhere.")
    elif record.known_as(asked) == "trained":
        logger.warning(
            f"The head in {head!r} was trained on some of these prompts, where it selects better than elsewhere: "
            "sample different prompts, e.g. with --split or --skip."
        )
    rollouts = sample_rollouts(
        language_model,
        tokenizer,
        problems,
        out,
        split=split,
        prompts=prompts,
        skip=skip,
        arguments=arguments,
        recording=Recording(head=load_reward_head(head)),
    )
    text_scores, name = None, None
    if text_reward_model is not None:
        texts = prompt_texts(tokenizer, problems.problems(split, skip + prompts)[skip:])
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
