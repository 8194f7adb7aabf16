"""The commands that make a head: train, refit, calibrate, convert."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..head.configuration_elhsr import ElhsrConfig
from ..head.paper_weights import check_published
from ..hub import convert_published
from ..hub.head_folder import calibrate_head_folder, refit_head_folder, train_head_folder
from ..models import check_dtype, load_language_model
from ..rollouts import RolloutSet
from ..training import LOSSES, PRESETS, RewardHeadTrainingArguments
from .options import (
    BaseModel,
    Dtype,
    HeadFolder,
    Json,
    Layer,
    Model,
    Seed,
    TrainingPrompts,
    one_of,
    recorded_base_model,
)
from .paths import check_folder, expanded
from .result import show

_PRESETS = "the preset's"


def train(
    rollouts: Annotated[Path, typer.Argument(help="Folder made by `hf-elhsr sample`.", callback=expanded)],
    out: HeadFolder,
    preset: Annotated[
        str,
        typer.Option(
            help=f"The values of the options below that are not passed: {', '.join(PRESETS)}.",
            autocompletion=one_of(PRESETS),
        ),
    ] = "default",
    loss: Annotated[
        str | None,
        typer.Option(
            help=f"Loss of the reward: {', '.join(LOSSES)}.", show_default=_PRESETS, autocompletion=one_of(LOSSES)
        ),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's learning rate.", show_default=_PRESETS)] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW's weight decay.", show_default=_PRESETS)] = None,
    prompts: TrainingPrompts = None,
    prompts_per_batch: Annotated[
        int | None, typer.Option(help="Prompts per step, with all their rollouts.", show_default=_PRESETS)
    ] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Maximum number of passes.", show_default=_PRESETS)] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without progress before stopping.", show_default=_PRESETS)
    ] = None,
    gate: Annotated[
        bool | None,
        typer.Option(
            "--gate/--no-gate", help="Weight tokens by a learned gate, or all equally.", show_default=_PRESETS
        ),
    ] = None,
    layer: Layer = None,
    standardize: Annotated[
        bool | None,
        typer.Option(
            "--standardize/--no-standardize", help="Standardise every feature, or none.", show_default=_PRESETS
        ),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a head on rollouts; the language model is not needed.

    If training is stopped, running the same command again resumes it.
    """
    passed = {
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
    changes: dict[str, Any] = {name: value for name, value in passed.items() if value is not None}
    if standardize is not None:
        changes["standardization"] = "per_feature" if standardize else None

    def arguments(signal: str) -> RewardHeadTrainingArguments:
        return dataclasses.replace(RewardHeadTrainingArguments.preset(preset, signal), **changes)

    # Mistakes in the options are reported before the rollouts, whose signal decides on the preset, are looked for
    arguments("hidden_states")
    rollout_set = RolloutSet(rollouts)
    check_folder(out)
    record, report = train_head_folder(rollout_set, arguments(rollout_set.config.signal), out)
    show(
        as_json,
        {"folder": str(out), **record.contents},
        f"Kept epoch {report.best_epoch + 1} of {len(report.held_out_loss)}: held-out loss "
        f"{min(report.held_out_loss):.4f}; best-of-n on {report.held_out_prompts} held-out prompts "
        f"{report.held_out_best_of_n:.1%} (one sample: {report.base_rate:.1%}). The head is in {escape(str(out))}.",
    )


def refit(
    head: Annotated[Path, typer.Argument(help="Folder made by `hf-elhsr train`.", callback=expanded)],
    out: HeadFolder,
    rollouts: Annotated[Path, typer.Option(help="The rollouts that the head was trained on.", callback=expanded)],
    pooled: Annotated[
        list[Path] | None,
        typer.Option(
            help="More rollouts, by `hf-elhsr sample --pooled-by` with this head; repeatable.", callback=expanded
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Solve again for a head's rewards and values, on more rollouts.

    Its gates stay as they are.
    """
    check_folder(out)
    record, report = refit_head_folder(head, rollouts, pooled or [], out)
    before, after = report.reward["held_out_loss_before"], min(report.reward["held_out_loss"])
    show(
        as_json,
        {"folder": str(out), **record.contents},
        f"Held-out loss {after:.4f} ({before:.4f} before); best-of-n on {report.held_out_prompts} held-out prompts "
        f"{report.held_out_best_of_n:.1%}. The head is in {escape(str(out))}.",
    )


def calibrate(
    head: Annotated[Path, typer.Argument(help="The head's folder, whose config.json is updated.", callback=expanded)],
    rollouts: Annotated[
        Path,
        typer.Argument(
            help="Rollouts of prompts it was not trained on, by `hf-elhsr evaluate` with this head.", callback=expanded
        ),
    ],
    as_json: Json = False,
) -> None:
    """Fit calibration, pruning and adaptive n on more prompts.

    The head's weights stay as they are.
    """
    fitted_on = RolloutSet(rollouts)
    prompts = fitted_on.settings["prompts"]
    fitted = [name for name, decision in calibrate_head_folder(head, fitted_on).items() if decision is not None]
    show(
        as_json,
        {"folder": str(head), "prompts": prompts, "fitted": fitted},
        f"Fitted on {prompts} prompts: {', '.join(fitted) or 'nothing, see above'}.",
    )


def convert(
    file: Annotated[Path, typer.Argument(help="reward_model_*.pt of the paper's own code.", callback=expanded)],
    out: HeadFolder,
    model: Model,
    base_model: BaseModel = None,
    layer: Layer = None,
    dtype: Dtype = "bfloat16",
    as_json: Json = False,
) -> None:
    """Make a head from weights that the paper's own code saved.

    Code in the file is not run.
    """
    # Mistakes are told before the model is loaded, which can take minutes
    check_dtype(dtype)
    check_published(file)
    base_model = recorded_base_model(model, base_model)
    check_folder(out)
    language_model, _ = load_language_model(model, dtype)
    config = ElhsrConfig.for_model(language_model, layers=layer, base_model=base_model)
    convert_published(file, config).save_pretrained(out)
    show(
        as_json,
        {"folder": str(out)},
        f"The head is in {escape(str(out))}. It has no calibration: measure it with `hf-elhsr evaluate`.",
    )
