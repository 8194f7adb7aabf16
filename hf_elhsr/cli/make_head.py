"""The commands that make a head: sample, relabel, train, refit, calibrate, convert."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..configuration_elhsr import ElhsrConfig
from ..generation.resolve import resolve_reward_head
from ..hub import convert_published
from ..rollouts import RolloutSet, SamplingSettings, ScoredRollouts, relabel_rollouts, sample_rollouts
from ..rollouts.disk_budget import parse_bytes
from ..rollouts.rollout_set import write_text
from ..rollouts.tasks import find_task
from ..training import LOSSES, PRESETS, fit_decisions, refit_head, train_head
from ..training import preset as preset_settings
from ..training.record import known_as, read_record
from .load_model import load_model, recorded_base_model
from .options import (
    BaseModel,
    Dtype,
    Extract,
    HeadFolder,
    Json,
    Layer,
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
    TrainingPrompts,
    Verifier,
    one_of,
)
from .result import show

_PRESETS = "the preset's"


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
    settings = SamplingSettings(n=n, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
    budget = None if disk_budget is None else parse_bytes(disk_budget)
    if pooled_by is not None and base_model is not None:
        raise ValueError("--base-model and --pooled-by: leave out --base-model, which the head knows.")
    language_model, tokenizer = load_model(model, dtype)
    base_model = base_model if pooled_by is not None else recorded_base_model(model, base_model)
    gates = None if pooled_by is None else resolve_reward_head(pooled_by)
    if gates is not None and signal not in ("hidden_states", gates.config.signal):
        raise ValueError(
            f"--signal {signal} and --pooled-by a head that reads {gates.config.signal}: leave out --signal, which the "
            "head knows."
        )
    sampled = sample_rollouts(
        language_model,
        tokenizer,
        find_task(task, verifier, extract),
        split,
        prompts,
        out,
        settings,
        head=gates,
        config=ElhsrConfig.for_model(language_model, base_model=base_model, signal=signal),
        skip=skip,
        pooled=gates is not None,
        disk_budget=budget,
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
        f"{right / len(rollouts):.1%} right{counts}"
        + (f"; the verifier failed on {len(failed)}, first with: {escape(str(failed[0]))}" if failed else "."),
    )


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
    dataclasses.replace(preset_settings(preset, "hidden_states"), **changes)
    rollout_set = RolloutSet(rollouts)
    settings = dataclasses.replace(preset_settings(preset, rollout_set.config.signal), **changes)
    head, report = train_head(rollout_set, settings, checkpoint=out / "checkpoint.safetensors")
    head.save_pretrained(out)
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
        resolve_reward_head(str(head)),
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
    if known_as(record, fitted_on.settings) == "trained":
        raise ValueError(
            f"The head in {str(head)!r} was trained on prompts of {str(rollouts)!r}, where it is right more often than "
            "elsewhere: sample others, e.g. with --skip."
        )
    loaded = resolve_reward_head(str(head))
    fitted = fit_decisions(ScoredRollouts.from_rollouts(fitted_on, loaded))
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
    language_model, _ = load_model(model, dtype)
    base_model = recorded_base_model(model, base_model)
    config = ElhsrConfig.for_model(language_model, layers=layer, base_model=base_model)
    convert_published(file, config).save_pretrained(out)
    show(
        as_json,
        {"folder": str(out)},
        f"The head is in {escape(str(out))}. It has no calibration: measure it with `hf-elhsr evaluate`.",
    )
