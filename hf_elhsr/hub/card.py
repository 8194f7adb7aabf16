"""The model card of a head, written from the records of its training and evaluation."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, TypeVar

import yaml  # type: ignore[import-untyped]
from huggingface_hub import ModelCardData, metadata_load

from .._files import write_text
from ..evaluation import Evaluation, TradeOff, evaluation_markdown
from ..evaluation.report import skipped_prompts
from ..evaluation.tradeoff import ADAPTIVE, PRUNED, decisions_digest
from ..head.configuration_elhsr import ElhsrConfig
from ..head.modeling_elhsr import ElhsrRewardHead
from ..rollouts import head_digest
from ..training import LOSSES
from .card_commands import making_commands
from .record import damaged_record, known_as, read_record, trained_on
from .results import model_index_results

#: What heads are found by.
TAG = "elhsr"
#: And, with the signal's name after it, what they read.
SIGNAL_TAG = "signal:"

_Numbers = TypeVar("_Numbers", Evaluation, TradeOff)


def write_card(folder: Path, *, license: str | None = None) -> Path:
    """Write `README.md` into a head's folder, and return its path.

    Args:
        folder: The head's.
        license: Of the weights, by its id on the Hub, as "apache-2.0". Default: that of the README.md which is there;
            else "other" where there is a file LICENSE, and none where not.

    Raises:
        ValueError: The folder lacks config.json, training.json or evaluation/*.json; one of these is damaged; or an
            evaluation or trade-off is of another head, or on prompts that the head was trained or calibrated on.
    """
    file = folder / "README.md"
    write_text(file, render_card(folder, license=license))
    return file


def missing_records(folder: Path) -> list[str]:
    """Which of the files that a card is made of are not there."""
    missing = [name for name in ("config.json", "training.json") if not (folder / name).is_file()]
    return missing if any((folder / "evaluation").glob("*.json")) else [*missing, "evaluation/*.json"]


def render_card(folder: Path, source: str | None = None, *, license: str | None = None) -> str:
    """The card's text. Every number in it is read from the folder's own records.

    Args:
        source: Where the card tells readers to load the head from, as "org/name". Default: a folder of this name.
        license: As of [`write_card`].
    """
    if missing := missing_records(folder):
        raise ValueError(
            f"{str(folder)!r} lacks {', '.join(missing)}: a card claims only what was measured. Run `hf-elhsr train` "
            "and `hf-elhsr evaluate --numbers`."
        )
    config = ElhsrConfig.from_pretrained(folder)
    training = read_record(folder)
    evaluations = check_measured(folder)
    tradeoffs = _tradeoffs(folder)
    # What only the head's author can say of its limits
    limits = (folder / "limits.md").read_text().strip() if (folder / "limits.md").is_file() else ""
    template = resources.files("hf_elhsr.hub").joinpath("card_template.md").read_text()
    source = source or f"path/to/{folder.resolve().name}"
    try:
        values = _values(source, config, training, evaluations, tradeoffs, limits)
    except (AttributeError, KeyError, TypeError) as error:  # of values that are missing or of the wrong type
        raise damaged_record(folder, error) from error
    metadata = _metadata(values["name"], config, evaluations, license or _present_license(folder))
    return Template(template).substitute(values, metadata=metadata)


def check_measured(folder: Path) -> list[Evaluation]:
    """A head's evaluations, as its folder has them.

    Raises:
        ValueError: One, or a trade-off, is damaged, is of another head, or is on prompts that the head was trained or
            calibrated on; or a trade-off is of other decisions than those in config.json.
    """
    evaluations, tradeoffs = _read(folder / "evaluation", Evaluation.from_json), _tradeoffs(folder)
    head = ElhsrRewardHead.from_pretrained(folder)
    digest, decisions = head_digest(head), decisions_digest(head.config)
    training = read_record(folder)
    learned_from = [(rollouts["task"], rollouts["split"]) for rollouts in trained_on(training)]
    measured: list[tuple[str, Evaluation | TradeOff]] = [("evaluation", evaluation) for evaluation in evaluations]
    measured += [("trade-off", tradeoff) for tradeoff in tradeoffs]
    for kind, one in measured:
        if one.head_sha256 != digest:
            raise ValueError(
                f"The {kind} on {one.split!r} is of another head than the one in {str(folder)!r}: measure this head "
                "again."
            )
        if (one.task, one.split) in learned_from:
            raise ValueError(f"The {kind} on {one.split!r} is on training prompts: measure on another split.")
        prompts = {"task": one.task, "split": one.split, "skip": one.skip, "prompts": one.prompts + one.unverified}
        if known_as(training, prompts) is not None:
            raise ValueError(
                f"The {kind} on {one.split!r} is on prompts that the head was calibrated on: measure on others, or "
                "calibrate on others."
            )
    if any(tradeoff.decisions_sha256 != decisions for tradeoff in tradeoffs):
        raise ValueError(
            f"A trade-off in {str(folder / 'tradeoff')!r} was measured with another calibration, pruning or adaptive n "
            "than config.json has, or does not say with which: run `hf-elhsr tradeoff` again."
        )
    return evaluations


def _tradeoffs(folder: Path) -> list[TradeOff]:
    return _read(folder / "tradeoff", TradeOff.from_json)


def _read(folder: Path, from_json: Callable[[str], _Numbers]) -> list[_Numbers]:
    """Of every JSON file in a folder."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            found.append(from_json(file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{str(file)!r} cannot be told of. {error}") from error
    return found


def _present_license(folder: Path) -> str | None:
    """What is licensed by whom is not ours to say: what the author has said before, in the card or in a file."""
    try:
        said = (metadata_load(folder / "README.md") or {}).get("license")
    except (OSError, ValueError, yaml.YAMLError):
        said = None
    if isinstance(said, str) and said:
        return said
    return "other" if any(folder.glob("LICENSE*")) else None


def _metadata(name: str, config: ElhsrConfig, evaluations: list[Evaluation], license: str | None) -> str:
    """The YAML at a card's top, by which the Hub lists heads; accuracies in percent."""
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
    training: dict[str, Any],
    evaluations: list[Evaluation],
    tradeoffs: list[TradeOff],
    limits: str,
) -> dict[str, Any]:
    rollouts, report = training["rollouts"], training["report"]
    rows = 2 if config.gate else 1
    name = source.rpartition("/")[2]
    return {
        "name": name,
        "head": source,
        "base_model": config.base_model,
        "parameters": f"{rows * (config.num_features + 1):,}",
        "value_row": _VALUE_ROW.format(config.num_features + 1) if config.value else "",
        "linear": "linear gated" if config.gate else "linear",
        "source": "hidden states" if config.signal == "hidden_states" else "next-token distributions",
        "features": _features(config),
        "task": rollouts["task"] + _TASKS.get(rollouts["task"], ""),
        "question": _QUESTIONS.get(rollouts["task"], "..."),
        "commands": making_commands(name, config, training),
        "train_prompts": report["train_prompts"],
        "held_out_prompts": report["held_out_prompts"],
        "prompts": rollouts["prompts"],
        "n": rollouts["sampling"]["n"],
        "temperature": rollouts["sampling"]["temperature"],
        "top_p": rollouts["sampling"]["top_p"],
        "top_k": rollouts["sampling"]["top_k"],
        "max_new_tokens": rollouts["sampling"]["max_new_tokens"],
        "loss": _loss_title(training["settings"].get("loss", "binary_cross_entropy")),
        "standardised": _STANDARDISED if config.standardization else "features as the model gives them",
        "epochs": len(report["held_out_loss"]),
        "best_epoch": report["best_epoch"] + 1,
        "refit": _refit(training["refit"]) if "refit" in training else "",
        "results": "\n\n".join(
            [
                *map(evaluation_markdown, evaluations),
                *(_savings(tradeoff, _fitted_on(training)) for tradeoff in tradeoffs),
            ]
        ),
        "limits": limits,
    }


def _loss_title(name: str) -> str:
    # A loss registered by a user's own code may be unknown to the process that writes the card
    return LOSSES[name].title if name in LOSSES else f"The loss `{name}`"


def _features(config: ElhsrConfig) -> str:
    if config.signal == "logits":
        return f"the {config.num_features:,} raw logits"
    if config.signal == "top_log_probabilities":
        return f"the {config.num_log_probabilities} highest log-probabilities and the own one"
    return f"{len(config.layers)} hidden states (width {config.hidden_size})"


_TASKS = {
    "arithmetic": ", word problems made from seeded templates, whose final number is checked",
    "coin_flip": ", questions on the side that a coin shows after some flips",
}
_QUESTIONS = {
    "arithmetic": "Anna found 4 coins on Monday and 7 coins on Tuesday. How many coins did Anna find altogether?"
}
_STANDARDISED = "features standardised, which is folded into the weights"
_VALUE_ROW = (
    " Another {:,} parameters judge completions that are still being written, for pruning; they have no part in the "
    "reward."
)


def _fitted_on(training: dict[str, Any]) -> str:
    """Which prompts the decisions in the head's config come from."""
    own = training.get("calibrate")
    if own is None:
        return "the held-out prompts of the training split"
    return f"{own['prompts']:,} further prompts of the split `{own['split']}`, which the head was not trained on"


def _refit(refit: dict[str, Any]) -> str:
    more = sum(rollouts["prompts"] for rollouts in refit["rollouts"])
    with_prefixes = sum(rollouts["prompts"] for rollouts in refit["rollouts"] if rollouts.get("prefixes"))
    also = f"and {with_prefixes:,} more" if with_prefixes else "alone"
    reward, value = refit["report"]["reward"], refit["report"]["value"]
    text = (
        f"\n- Then, with the gates as they were, the reward was solved for to its optimum (logistic regression, ridge "
        f"{reward['ridge']:g}\n  chosen on the held-out prompts), on the training prompts and {more:,} more."
    )
    if value is None:
        return text
    return (
        f"{text}\n- The row of weights for pruning was solved for likewise (ridge {value['ridge']:g}), on the training "
        f"prompts {also}: from the\n  mean of the hidden states so far to sigmoid(R) of the whole completion."
    )


def _savings(tradeoff: TradeOff, fitted_on: str) -> str:
    """What pruning and adaptive n save, and what confidences are worth."""
    lines = [
        f"### Fewer tokens: {tradeoff.prompts} prompts of the split `{tradeoff.split}`{skipped_prompts(tradeoff)}, "
        f"best of {tradeoff.n}",
        "",
        f"`prune` and `adaptive` name the accuracy that may be given up; the schedules were fitted on {fitted_on}. "
        "Replayed on rollouts that were sampled whole (`hf-elhsr tradeoff`).",
        "",
        "| setting | tokens, % of exact | right, % [95 % interval] | difference, points [95 % interval] |",
        "|---|---:|---:|---:|",
        f"| exact best-of-{tradeoff.n} | 100.0 | {tradeoff.exact} | |",
    ]
    for name, argument in ((PRUNED, "prune"), (ADAPTIVE, "adaptive")):
        for point in tradeoff.by_tolerance[name]:
            numbers = f"{100 * point.tokens:.1f} | {point.accuracy} | {point.difference}"
            lines.append(f"| `{argument}={point.setting:g}` | {numbers} |")
    errors = tradeoff.calibration
    lines += [
        "",
        f"Calibrated probabilities: expected calibration error {errors['rollouts'].expected_calibration_error:.3f} and "
        f"Brier score {errors['rollouts'].brier_score:.3f} over all rollouts, "
        f"{errors['winners'].expected_calibration_error:.3f} and {errors['winners'].brier_score:.3f} for the winners' "
        "`confidence`.",
        "",
        "| `min_confidence` | answered, % | of these right, % |",
        "|---:|---:|---:|",
    ]
    for entry in tradeoff.abstention:
        if entry.accuracy is not None and round(100 * entry.threshold) % 20 == 0:
            lines.append(f"| {entry.threshold:g} | {100 * entry.coverage:.1f} | {100 * entry.accuracy:.1f} |")
    return "\n".join(lines)
