"""The commands: sample, train, refit, evaluate, tradeoff, generate, card, convert."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape

from ..configuration_elhsr import ElhsrConfig
from ..evaluation import Evaluation, evaluate_rollouts, measure_tradeoff, plot_tradeoff
from ..generation.resolve import resolve_reward_head
from ..hub import convert_published, write_card
from ..rollouts import RolloutSet, SamplingSettings, encode_prompts, sample_rollouts
from ..rollouts.disk_budget import parse_bytes
from ..rollouts.rollout_set import write_text
from ..rollouts.tasks import find_task
from ..rollouts.text_scores import score_texts
from ..training import LOSSES, PRESETS, refit_head, train_head
from .load_model import base_model_id, load_model, load_text_reward_model
from .options import Dtype, Head, MaxNewTokens, Model, N, Seed, Signal, Skip, Task, Temperature, TopP, Verifier
from .tables import candidates_table, evaluation_table, explain_calibration, explain_columns, tradeoff_table

app = typer.Typer(
    help="Reward heads that read a language model's hidden states: sample, train, evaluate, generate.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
console = Console()


@app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="Folder for the rollouts; an unfinished one is gone on with.")],
    model: Model,
    task: Task = "arithmetic",
    verifier: Verifier = None,
    split: Annotated[str, typer.Option(help="The task's split.")] = "train",
    prompts: Annotated[int, typer.Option(min=1, help="How many prompts.")] = 400,
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
) -> None:
    """Sample rollouts for training: completions, labels and features in one pass."""
    settings = SamplingSettings(n=n, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
    budget = None if disk_budget is None else parse_bytes(disk_budget)
    language_model, tokenizer = load_model(model, dtype)
    gates = None if pooled_by is None else resolve_reward_head(pooled_by)
    if gates is not None and signal not in ("hidden_states", gates.config.signal):
        raise ValueError(
            f"--signal {signal} and --pooled-by a head that reads {gates.config.signal}: leave out --signal, which the "
            "head knows."
        )
    rollouts = sample_rollouts(
        language_model,
        tokenizer,
        find_task(task, verifier),
        split,
        prompts,
        out,
        settings,
        head=gates,
        config=ElhsrConfig.for_model(language_model, base_model=base_model_id(model), signal=signal),
        skip=skip,
        pooled=gates is not None,
        disk_budget=budget,
    ).rollouts()
    right = sum(rollout.label is True for rollout in rollouts)
    failed = [rollout.verifier_failure for rollout in rollouts if rollout.label is None]
    console.print(
        f"{len(rollouts)} rollouts of {prompts} prompts in {escape(str(out))}, {right / len(rollouts):.1%} right"
        + (f"; the verifier failed on {len(failed)}, first with: {escape(str(failed[0]))}" if failed else ".")
    )


@app.command()
def train(
    rollouts: Annotated[Path, typer.Argument(help="Folder made by `hf-elhsr sample`.")],
    out: Annotated[Path, typer.Argument(help="Folder for the head.")],
    preset: Annotated[
        str, typer.Option(help=f"Where the options below come from unless given: {', '.join(PRESETS)}.")
    ] = "default",
    loss: Annotated[str | None, typer.Option(help=f"Of the reward: {', '.join(LOSSES)}.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    prompts: Annotated[int | None, typer.Option(help="Only the first so many prompts. Default: all.")] = None,
    prompts_per_batch: Annotated[int | None, typer.Option(help="Prompts per step, with all their rollouts.")] = None,
    max_epochs: Annotated[int | None, typer.Option(help="At most so many passes.")] = None,
    patience: Annotated[int | None, typer.Option(help="Epochs without progress before stopping.")] = None,
    gate: Annotated[
        bool | None, typer.Option("--gate/--no-gate", help="Weigh tokens by a learned gate, or all alike.")
    ] = None,
    layer: Annotated[
        list[int] | None, typer.Option(help="A recorded layer that the head reads; repeatable. Default: all.")
    ] = None,
    standardize: Annotated[
        bool | None, typer.Option("--standardize/--no-standardize", help="Standardise every feature, or leave it.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split and of the order of prompts.")] = None,
) -> None:
    """Train a head on rollouts; the language model is not needed. A training that was killed goes on."""
    if preset not in PRESETS:
        raise ValueError(f"preset={preset!r}: expected one of {', '.join(PRESETS)}.")
    given = {
        "loss": loss,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "prompts": prompts,
        "prompts_per_batch": prompts_per_batch,
        "max_epochs": max_epochs,
        "patience": patience,
        "gate": gate,
        "layers": layer or None,
        "seed": seed,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if standardize is not None:
        changes["standardization"] = "per_feature" if standardize else None
    settings = dataclasses.replace(PRESETS[preset], **changes)
    rollout_set = RolloutSet(rollouts)
    head, report = train_head(rollout_set, settings, checkpoint=out / "checkpoint.safetensors")
    head.save_pretrained(out)
    record = {
        "rollouts": {name: value for name, value in rollout_set.settings.items() if name != "head_config"},
        "settings": dataclasses.asdict(settings),
        "report": dataclasses.asdict(report),
    }
    write_text(out / "training.json", json.dumps(record, indent=2) + "\n")
    console.print(
        f"Kept epoch {report.best_epoch + 1} of {len(report.held_out_loss)}: held-out loss "
        f"{min(report.held_out_loss):.4f}; best-of-n on {report.held_out_prompts} held-out prompts "
        f"{report.held_out_best_of_n:.1%} (one sample: {report.base_rate:.1%}). The head is in {escape(str(out))}."
    )


@app.command()
def refit(
    head: Annotated[Path, typer.Argument(help="Folder made by `hf-elhsr train`.")],
    out: Annotated[Path, typer.Argument(help="Folder for the refitted head.")],
    rollouts: Annotated[Path, typer.Option(help="The rollouts that the head was trained on.")],
    pooled: Annotated[
        list[Path] | None, typer.Option(help="More, made by `hf-elhsr sample --pooled-by` with this head; repeatable.")
    ] = None,
) -> None:
    """Solve for a head's rewards and values, on more rollouts, with its gates as they are."""
    if not (head / "training.json").is_file():
        raise ValueError(
            f"Expected a folder made by `hf-elhsr train`, whose training.json tells which prompts were held out, got "
            f"{str(head)!r}: train a head first."
        )
    record = json.loads((head / "training.json").read_text())
    more = [RolloutSet(folder) for folder in pooled or []]
    refitted, report = refit_head(
        resolve_reward_head(str(head)),
        RolloutSet(rollouts),
        more,
        prompts=record["settings"].get("prompts"),
        held_out=record["settings"]["held_out"],
        seed=record["settings"]["seed"],
    )
    refitted.save_pretrained(out)
    record["refit"] = {
        "rollouts": [
            {name: value for name, value in rollout_set.settings.items() if name != "head_config"}
            for rollout_set in more
        ],
        "report": dataclasses.asdict(report),
    }
    write_text(out / "training.json", json.dumps(record, indent=2) + "\n")
    before, after = report.reward["held_out_loss_before"], min(report.reward["held_out_loss"])
    console.print(
        f"Held-out loss {after:.4f} ({before:.4f} before); best-of-n on {report.held_out_prompts} held-out prompts "
        f"{report.held_out_best_of_n:.1%}. The head is in {escape(str(out))}."
    )


@app.command()
def evaluate(
    out: Annotated[Path, typer.Argument(help="Folder for the rollouts; an unfinished one is gone on with.")],
    model: Model,
    head: Head,
    task: Task = "arithmetic",
    verifier: Verifier = None,
    split: Annotated[str, typer.Option(help="The task's split.")] = "test",
    prompts: Annotated[int, typer.Option(min=2, help="How many prompts.")] = 400,
    skip: Skip = 0,
    n: N = 8,
    temperature: Temperature = 0.8,
    top_p: TopP = 0.9,
    max_new_tokens: MaxNewTokens = 64,
    seed: Seed = 0,
    dtype: Dtype = "bfloat16",
    text_reward_model: Annotated[
        str | None, typer.Option(help="Also a sequence classifier that reads the text, alone and beside the head.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
) -> None:
    """Measure best-of-n by a head on unseen prompts, against baselines, with 95 % intervals."""
    settings = SamplingSettings(n=n, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
    language_model, tokenizer = load_model(model, dtype)
    problems = find_task(task, verifier)
    rollouts = sample_rollouts(
        language_model,
        tokenizer,
        problems,
        split,
        prompts,
        out,
        settings,
        head=resolve_reward_head(head),
        skip=skip,
    )
    text_scores = None
    if text_reward_model is not None:
        asked = problems.problems(split, skip + prompts)[skip:]
        ids = [encode_prompts(tokenizer, [problem.question])["input_ids"][0] for problem in asked]
        prompt_texts = {problem.id: tokenizer.decode(own) for problem, own in zip(asked, ids, strict=True)}
        scorer, name = load_text_reward_model(text_reward_model, dtype)
        text_scores = score_texts(rollouts, prompt_texts, scorer, name)
    evaluation: Evaluation = evaluate_rollouts(rollouts, text_scores)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_text(json_file, evaluation.to_json())
    console.print(evaluation_table(evaluation))
    console.print(explain_columns(evaluation))


@app.command()
def tradeoff(
    rollouts: Annotated[Path, typer.Argument(help="Folder made by `hf-elhsr evaluate` with this head.")],
    head: Head,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Also draw the curves, as SVG.")] = None,
) -> None:
    """Measure what pruning, adaptive n and abstention save and cost; the language model is not needed."""
    measured = measure_tradeoff(RolloutSet(rollouts), resolve_reward_head(head))
    for file in (json_file, plot_file):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    if json_file is not None:
        write_text(json_file, measured.to_json())
    if plot_file is not None:
        plot_tradeoff(measured, plot_file)
    console.print(tradeoff_table(measured))
    console.print(explain_calibration(measured))


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to ask; '-' reads standard input.")],
    model: Model,
    head: Head,
    n: N = 8,
    temperature: Temperature = 0.8,
    top_p: TopP = 0.9,
    max_new_tokens: MaxNewTokens = 256,
    seed: Seed = 0,
    dtype: Dtype = "bfloat16",
    show_all: Annotated[bool, typer.Option("--all", help="Show all candidates, not only the winner.")] = False,
) -> None:
    """Answer one prompt with the best of n candidates."""
    language_model, tokenizer = load_model(model, dtype)
    inputs = encode_prompts(tokenizer, [sys.stdin.read() if prompt == "-" else prompt]).to(language_model.device)
    torch.manual_seed(seed)
    out = language_model.generate(
        **inputs,
        best_of_n=n,
        reward_head=head,
        temperature=temperature,
        top_p=top_p,
        top_k=0,
        max_new_tokens=max_new_tokens,
        return_dict_in_generate=True,
    )
    texts = tokenizer.batch_decode(out.candidates[0][:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    winner = int(out.winners[0, 0])
    if show_all:
        console.print(candidates_table(texts, out.rewards[0].tolist(), winner))
    else:
        console.print(texts[winner], markup=False, highlight=False)


@app.command()
def card(
    folder: Annotated[Path, typer.Argument(help="The head's folder, with training.json and evaluation/*.json.")],
) -> None:
    """Write a head's model card, README.md, from its training and evaluation records."""
    console.print(f"Wrote {escape(str(write_card(folder)))}.")


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="reward_model_*.pt of the paper's own code.")],
    out: Annotated[Path, typer.Argument(help="Folder for the head.")],
    model: Model,
    layer: Annotated[
        list[int] | None, typer.Option(help="The layers it was trained on; repeatable. Default: all.")
    ] = None,
    dtype: Dtype = "bfloat16",
) -> None:
    """Make a head from the weights that the paper's own code saves. No code in the file is run."""
    language_model, _ = load_model(model, dtype)
    config = ElhsrConfig.for_model(language_model, layers=layer, base_model=base_model_id(model))
    convert_published(file, config).save_pretrained(out)
    console.print(f"The head is in {escape(str(out))}. It has no calibration: measure it with `hf-elhsr evaluate`.")


def main() -> None:
    """Run a command; what the user can mend is one line, not a traceback."""
    run: Callable[..., Any] = app
    try:
        run()
    except (ValueError, OSError) as error:
        # OSError: transformers' word for a model or tokenizer that is not there
        Console(stderr=True).print(f"[red]Error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
