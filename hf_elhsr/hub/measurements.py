"""The measurements of a head, read from the files in its folder, and checks that they are of this head."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .._files import write_text
from .._locks import owning
from ..evaluation import Evaluation, TradeOff
from ..evaluation.tradeoff import decisions_digest
from ..head.files import current_file
from ..head.modeling_elhsr import ElhsrRewardHead
from .record import TrainingRecord

_Numbers = TypeVar("_Numbers", Evaluation, TradeOff)


def missing_records(folder: Path) -> list[str]:
    """The files that a card needs and the folder lacks."""
    missing = [name for name in ("config.json", "training.json") if not current_file(folder, name).is_file()]
    return missing if any((folder / "evaluation").glob("*.json")) else [*missing, "evaluation/*.json"]


def write_measurement(file: Path, numbers: Evaluation | TradeOff) -> None:
    """Write what a card reports, for example to `evaluation/test.json` in a head's folder.

    Raises:
        ValueError: Another process is writing into the head's folder.
        OSError: The file cannot be written.
    """
    with owning(folder_of_measurement(file)):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, numbers.to_json())


def folder_of_measurement(file: Path) -> Path:
    """The head's folder that such a file belongs to; for a file elsewhere the one that it is in."""
    return file.parent.parent if file.parent.name in ("evaluation", "tradeoff") else file.parent


def read_measurements(folder: Path) -> tuple[list[Evaluation], list[TradeOff]]:
    """The evaluations and trade-offs in a head's folder.

    Raises:
        ValueError: One is damaged, was measured with another head, or on prompts that the head was trained or
            calibrated on; or a trade-off was measured with other decisions than those in config.json.
    """
    evaluations = _read(folder / "evaluation", Evaluation.from_json)
    tradeoffs = _read(folder / "tradeoff", TradeOff.from_json)
    head = ElhsrRewardHead.from_pretrained(folder)
    digest, decisions = head.digest(), decisions_digest(head.config)
    record = TrainingRecord.read(folder)
    learned_from = [(rollouts["task"], rollouts["split"]) for rollouts in record.trained_on]
    measured: list[tuple[str, Evaluation | TradeOff]] = [("evaluation", evaluation) for evaluation in evaluations]
    measured += [("trade-off", tradeoff) for tradeoff in tradeoffs]
    for kind, one in measured:
        if one.head_sha256 != digest:
            raise ValueError(
                f"The {kind} on {one.split!r} is of another head than the one in {str(folder)!r}: measure this head "
                "again."
            )
        if (one.task, one.split) in learned_from:
            raise ValueError(f"The {kind} on {one.split!r} is on training prompts: measure on a different split.")
        asked = one.prompts + one.unverified + one.overlong
        prompts = {"task": one.task, "split": one.split, "skip": one.skip, "prompts": asked}
        if record.known_as(prompts) is not None:
            raise ValueError(
                f"The {kind} on {one.split!r} is on prompts that the head was calibrated on: measure or calibrate on "
                "different prompts."
            )
    if any(tradeoff.decisions_sha256 != decisions for tradeoff in tradeoffs):
        raise ValueError(
            f"A trade-off in {str(folder / 'tradeoff')!r} was measured with another calibration, pruning or adaptive n "
            "than config.json has, or does not record with which: run `hf-elhsr tradeoff` again."
        )
    return evaluations, tradeoffs


def _read(folder: Path, from_json: Callable[[str], _Numbers]) -> list[_Numbers]:
    """The contents of every JSON file in a folder."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            found.append(from_json(file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{str(file)!r} cannot be summarised. {error}") from error
    return found
