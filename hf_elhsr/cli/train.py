"""The commands that make a head: train, refit, calibrate, convert."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from .._files import write_text
from ..decisions.fit import fit_decisions
from ..head.configuration_elhsr import ElhsrConfig
from ..head.loading import load_reward_head
from ..hub import convert_published
from ..hub.record import OTHER_ROWS, known_as, order_changed, read_record
from ..models import load_language_model
from ..rollouts import RolloutSet
from ..rollouts.scoring import score_rollouts
from ..training import LOSSES, PRESETS, RewardHeadTrainer, RewardHeadTrainingArguments, refit_head
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
from .result import show

_PRESETS = "the preset's"


def train(
    rollouts: Annotated[Path, typer.Argument(help="Folder made by `hf-elhsr sample`.")],
    out: HeadFolder,
    preset: Annotated[
        str,
        typer.Option(
            help=f"Where the options below come from unless given: {', '.join(PRESETS)}.",
            autocompletion=one_of(PRESETS),
        ),
    ] = "default",
    loss: Annotated[
        str | None,
        typer.Option(help=f"Of the reward: {', '.join(LOSSES)}.", show_default=_PRESETS, autocompletion=one_of(LOSSES)),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW.", show_default=_PRESETS)] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW.", show_default=_PRESETS)] = None,
    prompts: TrainingPrompts = None,
    prompts_per_batch: Annotated[
        int | None, typer.Option(help="Prompts per step, with all their rollouts.", show_default=_PRESETS)
    ] = None,
    max_epochs: Annotated[int | None, typer.Option(help="At most so many passes.", show_default=_PRESETS)] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without progress before stopping.", show_default=_PRESETS)
    ] = None,
    gate: Annotated[
        bool | None,
        typer.Option("--gate/--no-gate", help="Weigh tokens by a learned gate, or all alike.", show_default=_PRESETS),
    ] = None,
    layer: Layer = None,
    standardize: Annotated[
        bool | None,
        typer.Option(
            "--standardize/--no-standardize", help="Standardise every feature, or leave it.", show_default=_PRESETS
        ),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a head on rollouts; the language model is not needed.

    A training that was stopped goes on where it was, when the same command is given again.
    """
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
    # Mistakes in the options are told before the rollouts are looked for, whose signal decides on the default
    dataclasses.replace(RewardHeadTrainingArguments.preset(preset, "hidden_states"), **changes)
    rollout_set = RolloutSet(rollouts)
    settings = dataclasses.replace(RewardHeadTrainingArguments.preset(preset, rollout_set.config.signal), **changes)
    trainer = RewardHeadTrainer(rollout_set, settings, checkpoint=out / "checkpoint.safetensors")
    report = trainer.train()
    trainer.head.save_pretrained(out)
    record = {
        "rollouts": {name: value for name, value in rollout_set.settings.items() if name != "head_config"},
        "settings": dataclasses.asdict(settings),
        "report": dataclasses.asdict(report),
    }
    write_text(out / "training.json", json.dumps(record, indent=2) + "\n")
    show(
        as_json,
        {"folder": str(out), **record},
        f"Kept epoch {report.best_epoch + 1} of {len(report.held_out_loss)}: held-out loss "
        f"{min(report.held_out_loss):.4f}; best-of-n on {report.held_out_prompts} held-out prompts "
        f"{report.held_out_best_of_n:.1%} (one sample: {report.base_rate:.1%}). The head is in {escape(str(out))}.",
    )


def refit(
    head: Annotated[Path, typer.Argument(help="Folder made by `hf-elhsr train`.")],
    out: HeadFolder,
    rollouts: Annotated[Path, typer.Option(help="The rollouts that the head was trained on.")],
    pooled: Annotated[
        list[Path] | None, typer.Option(help="More, made by `hf-elhsr sample --pooled-by` with this head; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Solve anew for a head's rewards and values, on more rollouts.

    Its gates stay as they are.
    """
    if not (head / "training.json").is_file():
        raise ValueError(
            f"Expected a folder made by `hf-elhsr train`, whose training.json tells which prompts were held out, got "
            f"{str(head)!r}: train a head first."
        )
    record = read_record(head)
    trained_on, given = record["rollouts"], RolloutSet(rollouts).settings
    # Labels may have been mended since; who is held out does not depend on them
    names = (trained_on.keys() | given.keys()) - {"head_config", "labelled_by"}
    different = sorted(name for name in names if trained_on.get(name) != given.get(name))
    if different:
        raise ValueError(
            f"The head in {str(head)!r} was trained on other rollouts than those in {str(rollouts)!r} "
            f"({', '.join(different)} differ), so prompts that it learned from would count as held out: give the "
            "rollouts that it was trained on."
        )
    more = [RolloutSet(folder) for folder in pooled or []]
    refitted, report = refit_head(
        load_reward_head(str(head)),
        RolloutSet(rollouts),
        more,
        prompts=record["settings"].get("prompts"),
        held_out=record["settings"]["held_out"],
        seed=record["settings"]["seed"],
    )
    refitted.save_pretrained(out)
    # Its decisions are those of the held-out prompts again
    record.pop("calibrate", None)
    record["refit"] = {
        "rollouts": [
            {name: value for name, value in rollout_set.settings.items() if name != "head_config"}
            for rollout_set in more
        ],
        "report": dataclasses.asdict(report),
    }
    write_text(out / "training.json", json.dumps(record, indent=2) + "\n")
    before, after = report.reward["held_out_loss_before"], min(report.reward["held_out_loss"])
    show(
        as_json,
        {"folder": str(out), **record},
        f"Held-out loss {after:.4f} ({before:.4f} before); best-of-n on {report.held_out_prompts} held-out prompts "
        f"{report.held_out_best_of_n:.1%}. The head is in {escape(str(out))}.",
    )


def calibrate(
    head: Annotated[Path, typer.Argument(help="The head's folder, whose config.json is written anew.")],
    rollouts: Annotated[
        Path, typer.Argument(help="Rollouts of prompts it was not trained on, by `hf-elhsr evaluate` with this head.")
    ],
    as_json: Json = False,
) -> None:
    """Fit calibration, pruning and adaptive n on more prompts.

    The head's weights stay as they are.
    """
    fitted_on = RolloutSet(rollouts)
    fitted_on.check_complete()
    record = read_record(head)
    if order_changed(record, fitted_on.settings):
        raise ValueError(OTHER_ROWS)
    if known_as(record, fitted_on.settings) == "trained":
        raise ValueError(
            f"The head in {str(head)!r} was trained on prompts of {str(rollouts)!r}, where it is right more often than "
            "elsewhere: sample others, e.g. with --skip."
        )
    loaded = load_reward_head(str(head))
    fitted = fit_decisions(score_rollouts(fitted_on, loaded))
    for name, fields in fitted.items():
        setattr(loaded.config, name, fields)
    write_text(head / "config.json", loaded.config.to_json_string())
    if record:
        record["calibrate"] = {key: value for key, value in fitted_on.settings.items() if key != "head_config"}
        write_text(head / "training.json", json.dumps(record, indent=2) + "\n")
    present = [name for name, fields in fitted.items() if fields is not None]
    show(
        as_json,
        {"folder": str(head), "prompts": fitted_on.settings["prompts"], "fitted": present},
        f"Fitted on {fitted_on.settings['prompts']} prompts: {', '.join(present) or 'nothing, see above'}.",
    )


def convert(
    file: Annotated[Path, typer.Argument(help="reward_model_*.pt of the paper's own code.")],
    out: HeadFolder,
    model: Model,
    base_model: BaseModel = None,
    layer: Layer = None,
    dtype: Dtype = "bfloat16",
    as_json: Json = False,
) -> None:
    """Make a head from weights that the paper's own code has saved.

    No code in the file is run.
    """
    language_model, _ = load_language_model(model, dtype)
    base_model = recorded_base_model(model, base_model)
    config = ElhsrConfig.for_model(language_model, layers=layer, base_model=base_model)
    convert_published(file, config).save_pretrained(out)
    show(
        as_json,
        {"folder": str(out)},
        f"The head is in {escape(str(out))}. It has no calibration: measure it with `hf-elhsr evaluate`.",
    )
