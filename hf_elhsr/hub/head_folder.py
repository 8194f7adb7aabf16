"""Heads made in folders, each with the record of what it was made from: trained, refitted, calibrated."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from .._files import write_text
from ..decisions.decision import Decision
from ..decisions.fit import fit_decisions
from ..head.files import of_one_save
from ..head.loading import load_reward_head
from ..head.modeling_elhsr import ElhsrRewardHead
from ..rollouts import RolloutSet
from ..rollouts.scoring import score_rollouts
from ..training import RewardHeadTrainer, RewardHeadTrainingArguments, TrainingReport, refit_head
from ..training.refit import RefitReport
from .record import OTHER_ROWS, TrainingRecord
from .whole_save import owning_head_folder, replacing_together


def train_head_folder(
    rollouts: RolloutSet, arguments: RewardHeadTrainingArguments, folder: Path
) -> tuple[TrainingRecord, TrainingReport]:
    """Train a head, and write it and its record into a folder. A training that was stopped is resumed.

    Raises:
        ValueError: The rollouts are refused, see [`RewardHeadTrainer`]; or another process is writing into the folder.
        OSError: The folder cannot be written.
    """
    checkpoint = folder / "checkpoint.safetensors"
    with owning_head_folder(folder):
        trainer = RewardHeadTrainer(rollouts, arguments, checkpoint)
        report = trainer.train()
        record = TrainingRecord.of_training(rollouts, arguments, report)
        with replacing_together(folder) as staged:
            save_head(trainer.head, staged, record)
        # Only now, since until then it is all that is left of the training if this process is killed
        checkpoint.unlink(missing_ok=True)
    return record, report


def save_head(head: ElhsrRewardHead, folder: Path, record: TrainingRecord) -> None:
    """Write a head and its record into a folder that nothing else uses."""
    PreTrainedModel.save_pretrained(head, folder)
    record.write(folder)


def refit_head_folder(
    source: Path, rollouts: Path, pooled: Sequence[Path], folder: Path
) -> tuple[TrainingRecord, RefitReport]:
    """Refit the head in `source`, see [`refit_head`], and write it and its record into a folder.

    Args:
        source: A folder made by [`train_head_folder`].
        rollouts: The folder of the rollouts that the head was trained on.
        pooled: Folders of more rollouts, pooled by this head.
        folder: Folder for the refitted head.

    Raises:
        ValueError: The source has no record of a training, the training was on different rollouts, or [`refit_head`]
            refuses.
    """
    with owning_head_folder(folder):
        record, refitted, report = of_one_save(source, lambda: _refitted(source, rollouts, pooled))
        with replacing_together(folder) as staged:
            save_head(refitted, staged, record)
    return record, report


def _refitted(
    source: Path, rollouts: Path, pooled: Sequence[Path]
) -> tuple[TrainingRecord, ElhsrRewardHead, RefitReport]:
    record = TrainingRecord.read(source)
    if not record.contents:
        raise ValueError(
            f"Expected a folder made by `hf-elhsr train`, whose training.json records which prompts were held out, got "
            f"{str(source)!r}: train a head first."
        )
    trained_on, more = RolloutSet(rollouts), [RolloutSet(one) for one in pooled]
    if different := record.differences(trained_on):
        raise ValueError(
            f"The head in {str(source)!r} was trained on different rollouts than those in {str(rollouts)!r} "
            f"({', '.join(different)} differ), so prompts that it learned from would count as held out: pass the "
            "rollouts that it was trained on."
        )
    settings = record.settings
    refitted, report = refit_head(
        load_reward_head(source),
        trained_on,
        more,
        prompts=settings.get("prompts"),
        held_out=settings["held_out"],
        seed=settings["seed"],
    )
    return record.refitted(more, report), refitted, report


def calibrate_head_folder(folder: Path, rollouts: RolloutSet) -> dict[str, Decision | None]:
    """Fit a head's decisions on more rollouts, write them into its config, and record what they were fitted on.

    Args:
        folder: The head's folder.
        rollouts: Rollouts of prompts that it was not trained on, with its rewards, by `hf-elhsr evaluate`.

    Returns:
        The decisions by name; None for one that could not be fitted.

    Raises:
        ValueError: Rollouts are missing, the head was trained on some of their prompts, or it is unknown whether it
            was.
    """
    rollouts.check_complete()
    with owning_head_folder(folder):
        record = TrainingRecord.read(folder)
        if record.order_changed(rollouts.settings):
            raise ValueError(OTHER_ROWS)
        if record.known_as(rollouts.settings) == "trained":
            raise ValueError(
                f"The head in {str(folder)!r} was trained on prompts of {str(rollouts.folder)!r}, where it is correct "
                "more often than elsewhere: sample different prompts, e.g. with --skip."
            )
        head = load_reward_head(folder)
        fitted = fit_decisions(score_rollouts(rollouts, head))
        for name, decision in fitted.items():
            setattr(head.config, name, decision)
        with replacing_together(folder) as staged:
            write_text(staged / "config.json", head.config.to_json_string())
            if record.contents:
                record.calibrated(rollouts).write(staged)
    return fitted
