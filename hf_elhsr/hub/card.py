"""The model card of a head, written from the records of its training and evaluation."""

from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import yaml  # type: ignore[import-untyped]
from huggingface_hub import ModelCardData, metadata_load

from .._files import write_text
from ..evaluation import Evaluation, TradeOff, evaluation_markdown
from ..evaluation.report import skipped_prompts
from ..evaluation.tables import abstention_table, savings_table
from ..head.configuration_elhsr import ElhsrConfig
from ..head.files import current_file, read_config
from ..head.modeling_elhsr import head_class
from ..training import LOSSES
from .card_commands import making_commands
from .measurements import missing_records, read_measurements
from .model_index import model_index_results
from .record import TrainingRecord, damaged_record
from .whole_save import owning_head_folder

#: The tag that heads are found by.
TAG = "elhsr"
#: The beginning of a tag that says what a head reads; the signal's name follows.
SIGNAL_TAG = "signal:"


def write_card(folder: Path, *, license: str | None = None) -> Path:
    """Write `README.md` into a head's folder, and return its path.

    Args:
        folder: The head's folder.
        license: The license of the weights, by its id on the Hub, such as "apache-2.0". Default: the one in the present
            README.md; without it "other" if there is a file LICENSE, and no license if there is none.

    Raises:
        ValueError: The folder lacks config.json, training.json or evaluation/*.json; one of these is damaged; or an
            evaluation or trade-off was measured with another head, or on prompts that the head was trained or
            calibrated on.
    """
    file = folder / "README.md"
    with owning_head_folder(folder):
        write_text(file, render_card(folder, license=license))
    return file


def render_card(folder: Path, source: str | None = None, *, license: str | None = None) -> str:
    """Return the card's text. Every number in it is read from the folder's own records.

    Args:
        source: Where the card says to load the head from, such as "org/name". Default: a folder of this name.
        license: See [`write_card`].
    """
    if missing := missing_records(folder):
        raise ValueError(
            f"{str(folder)!r} lacks {', '.join(missing)}: a card claims only what was measured. Run `hf-elhsr train` "
            "and `hf-elhsr evaluate --numbers`."
        )
    config, _ = read_config(current_file(folder, "config.json"), folder)
    record = TrainingRecord.read(folder)
    evaluations, tradeoffs = read_measurements(folder)
    # Limits that only the head's author knows
    limits = (folder / "limits.md").read_text().strip() if (folder / "limits.md").is_file() else ""
    template = resources.files("hf_elhsr.hub").joinpath("card_template.md").read_text()
    source = source or f"path/to/{folder.resolve().name}"
    try:
        values = _values(source, config, record, evaluations, tradeoffs, limits)
    except (
        AttributeError,
        KeyError,
        OverflowError,
        TypeError,
    ) as error:  # from values that are missing or of a wrong type
        raise damaged_record(folder, error) from error
    metadata = _metadata(values["name"], config, evaluations, license or _present_license(folder))
    return Template(template).substitute(values, metadata=metadata)


def _present_license(folder: Path) -> str | None:
    """The license that the author has named before, in the card or in a file; choosing one is not up to us."""
    try:
        named = (metadata_load(folder / "README.md") or {}).get("license")
    except (OSError, ValueError, yaml.YAMLError):
        named = None
    if isinstance(named, str) and named:
        return named
    return "other" if any(folder.glob("LICENSE*")) else None


def _metadata(name: str, config: ElhsrConfig, evaluations: list[Evaluation], license: str | None) -> str:
    """The YAML at the top of a card, by which the Hub lists heads; accuracies in percent."""
    data = ModelCardData(
        license=license,
        library_name="hf-elhsr",
        pipeline_tag="text-generation",
        base_model=config.base_model,
        base_model_relation="adapter",
        tags=[TAG, "reward-head", "best-of-n", f"{SIGNAL_TAG}{config.signal}"],
        model_name=name,
        eval_results=model_index_results(evaluations),
    )
    text: str = data.to_yaml()
    return text


def _values(
    source: str,
    config: ElhsrConfig,
    record: TrainingRecord,
    evaluations: list[Evaluation],
    tradeoffs: list[TradeOff],
    limits: str,
) -> dict[str, Any]:
    rollouts, report = record.rollouts, record.report
    reward_parameters, value_parameters = head_class(config).parameter_counts(config)
    name = source.rpartition("/")[2]
    return {
        "name": name,
        "head": source,
        "base_model": config.base_model,
        "parameters": f"{reward_parameters:,}",
        "value_row": _VALUE_ROW.format(value_parameters) if value_parameters else "",
        "linear": "linear gated" if config.gate else "linear",
        "source": config.reads.source,
        "features": config.reads.description,
        "task": rollouts["task"] + _TASKS.get(rollouts["task"], ""),
        "question": _QUESTIONS.get(rollouts["task"], "..."),
        "commands": making_commands(name, config, record),
        "train_prompts": report["train_prompts"],
        "held_out_prompts": report["held_out_prompts"],
        "prompts": rollouts["prompts"],
        "n": rollouts["sampling"]["n"],
        "temperature": rollouts["sampling"]["temperature"],
        "top_p": rollouts["sampling"]["top_p"],
        "top_k": rollouts["sampling"]["top_k"],
        "max_new_tokens": rollouts["sampling"]["max_new_tokens"],
        "loss": _loss_title(record.settings.get("loss", "binary_cross_entropy")),
        "standardised": _STANDARDISED if config.standardization else "features as the model computes them",
        "epochs": len(report["held_out_loss"]),
        "best_epoch": report["best_epoch"] + 1,
        "refit": _refit(record.refit) if record.refit else "",
        "results": "\n\n".join(
            [
                *map(evaluation_markdown, evaluations),
                *(_savings(tradeoff, _fitted_on(record.calibrate)) for tradeoff in tradeoffs),
            ]
        ),
        "limits": limits,
    }


def _loss_title(name: str) -> str:
    # A loss registered by a user's own code may be unknown to the process that writes the card
    return LOSSES[name].title if name in LOSSES else f"The loss `{name}`"


_TASKS = {
    "arithmetic": ", word problems made from seeded templates, whose final number is checked",
    "coin_flip": ", questions about the side that a coin shows after some flips",
}
_QUESTIONS = {
    "arithmetic": "Anna found 4 coins on Monday and 7 coins on Tuesday. How many coins did Anna find altogether?"
}
_STANDARDISED = "features standardised, with the standardisation folded into the weights"
_VALUE_ROW = (
    " Another {:,} parameters rate completions that are still being written, for pruning; the reward does not depend "
    "on them."
)


def _fitted_on(calibrate: dict[str, Any] | None) -> str:
    """The prompts that the decisions in the head's config were fitted on."""
    if calibrate is None:
        return "the held-out prompts of the training split"
    return (
        f"{calibrate['prompts']:,} further prompts of the split `{calibrate['split']}`, which the head was not "
        "trained on"
    )


def _refit(refit: dict[str, Any]) -> str:
    more = sum(rollouts["prompts"] for rollouts in refit["rollouts"])
    with_prefixes = sum(rollouts["prompts"] for rollouts in refit["rollouts"] if rollouts.get("prefixes"))
    also = f"and {with_prefixes:,} more" if with_prefixes else "alone"
    reward, value = refit["report"]["reward"], refit["report"]["value"]
    text = (
        f"\n- Then the reward was refitted to its optimum with the gates unchanged (logistic regression, ridge "
        f"{reward['ridge']:g}\n  chosen on the held-out prompts), on the training prompts and {more:,} more."
    )
    if value is None:
        return text
    return (
        f"{text}\n- The row of weights for pruning was refitted in the same way (ridge {value['ridge']:g}), on the "
        f"training prompts {also}: from the\n  mean of the hidden states so far to sigmoid(R) of the whole completion."
    )


def _savings(tradeoff: TradeOff, fitted_on: str) -> str:
    """The tokens that pruning and adaptive n save, and the errors of the calibrated probabilities."""
    errors = tradeoff.calibration
    return "\n\n".join(
        [
            f"### Fewer tokens: {tradeoff.prompts} prompts of the split `{tradeoff.split}`"
            f"{skipped_prompts(tradeoff)}, best of {tradeoff.n}",
            "`prune` and `adaptive` name the tolerance, the accuracy that may be given up; the schedules were fitted "
            f"on {fitted_on}. They were replayed on rollouts that were sampled whole (`hf-elhsr tradeoff`).",
            savings_table(tradeoff).markdown(),
            f"Calibrated probabilities: expected calibration error {errors['rollouts'].expected_calibration_error:.3f} "
            f"and Brier score {errors['rollouts'].brier_score:.3f} over all rollouts, "
            f"{errors['winners'].expected_calibration_error:.3f} and {errors['winners'].brier_score:.3f} for the "
            "winners' `confidence`.",
            abstention_table(tradeoff).markdown(),
        ]
    )
