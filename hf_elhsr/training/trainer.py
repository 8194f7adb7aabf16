"""train_head: a loss of the rewards on rollouts, stopped early on prompts held out; then the head's decisions."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel
from transformers.utils import logging
from transformers.utils.logging import tqdm

from ..decisions.fit import fit_decisions
from ..head.modeling_elhsr import ElhsrRewardHead, make_head
from ..rollouts import RolloutSet
from ..rollouts.scoring import score_rollouts
from .checkpoint import TrainingState, load_optimizer_tensors, optimizer_tensors, prefixed, too_far, without_prefix
from .data import Batch, PromptGroups, feature_statistics
from .log_odds import make_log_odds, start_at_base_rate
from .losses import COMPARING, LOSSES, prefix_cross_entropy
from .settings import RewardHeadTrainingArguments, preset

logger = logging.get_logger(__name__)


@dataclass
class TrainingReport:
    """What happened in training.

    Args:
        train_prompts, held_out_prompts: How many of each; no prompt is in both.
        train_loss, held_out_loss: Of R per epoch, see `RewardHeadTrainingArguments.loss`; in training the mean over
            batches, weighted by their rollouts.
        held_out_prefix_loss: Of V_t per epoch, mean over prefixes, in nats. Empty for rollouts of which some tokens
            were left out for a disk budget: their heads have no V_t.
        best_epoch, best_value_epoch: The epochs (from 0) whose weights were kept for R and for V_t: those with the
            lowest held-out losses.
        base_rate: Share of right rollouts among the held-out ones.
        held_out_best_of_n: Accuracy of the head's choices on the held-out prompts, with the kept weights. Slightly
            optimistic, since these prompts chose the epoch.
    """

    train_prompts: int
    held_out_prompts: int
    base_rate: float
    train_loss: list[float] = field(default_factory=list)
    held_out_loss: list[float] = field(default_factory=list)
    held_out_prefix_loss: list[float] = field(default_factory=list)
    best_epoch: int = -1
    best_value_epoch: int = -1
    held_out_best_of_n: float = float("nan")


def train_head(
    rollouts: RolloutSet, settings: RewardHeadTrainingArguments | None = None, checkpoint: Path | None = None
) -> tuple[ElhsrRewardHead, TrainingReport]:
    """Train a head on rollouts with recorded features; the language model is not needed.

    Features are standardised to mean 0 and variance 1 over the training tokens, unless `settings` say otherwise, and
    the standardisation is folded into the weights of the head returned. The rows of R and the row of V_t are trained
    side by side and share nothing but the pass over the features. Losses that only compare rewards leave their scale
    and origin open: unless it is binary cross-entropy, R becomes a R + b with the a > 0 and b that make sigmoid(R) the
    best estimate of P(correct) on the held-out prompts, which changes no choice. In the end calibration, pruning and
    adaptive n are fitted on the held-out prompts.

    Args:
        settings: Default: the preset "default" for the signal that was recorded, see [`preset`].
        checkpoint: A file to keep the state in after every epoch, so that a training that was killed goes on there,
            with the same result as if it had not been. It is deleted in the end.

    Returns:
        The head with the weights of the best epoch, and what happened.

    Raises:
        ValueError: Prompts missing, double or too few, layers that were not recorded, labels all of one class, a file
            that is damaged or features that are not finite (the message names the file), or a training that diverges.
    """
    settings = settings or preset("default", rollouts.config.signal)
    loss_of = LOSSES[settings.loss]
    rollouts.check_complete()
    config = settings.head_config(rollouts.config)
    groups = PromptGroups(rollouts, config, settings.prompts)
    config.value = not groups.subsampled
    if groups.subsampled:
        logger.warning(
            "Some tokens of these rollouts were left out for a disk budget, so the head gets no row of V_t, which "
            "learns from whole prefixes, and no pruning schedule before `hf-elhsr calibrate` fits one."
        )
    train, held_out = groups.split(settings.held_out, settings.seed)
    _refuse_one_class(groups, training=train, held_out=held_out)
    if settings.loss in COMPARING:
        _refuse_nothing_to_compare(groups, settings.loss, training=train, held_out=held_out)
    # A training that goes on may have more epochs or patience than it began with
    free = ("max_epochs", "patience")
    run = {name: value for name, value in asdict(settings).items() if name not in free} | {"on": rollouts.settings}
    # They can be judged anew while all else stays as it is
    run["labels_sha256"] = hashlib.sha256(str(groups.labels(groups.prompts)).encode()).hexdigest()
    state = None if checkpoint is None else TrainingState.load(checkpoint, run)
    if state is not None and too_far(state.report["held_out_loss"], settings):
        logger.warning(f"{str(checkpoint)!r} is of more epochs than are wanted now, and is overwritten.")
        state = None
    if state is not None:
        # Copies: products of tensors that lie unaligned in a file's buffer are rounded otherwise on some processors
        mean, std = state.tensors["mean"].clone(), state.tensors["std"].clone()
    elif settings.standardization is None:
        mean, std = torch.zeros(config.num_features), torch.ones(config.num_features)
    else:
        mean, std = feature_statistics(groups, train, settings.prompts_per_batch)
    head = make_head(config)
    start_at_base_rate(head, settings.loss, groups.labels(train))
    weights = [parameter for parameter in head.parameters() if parameter.ndim > 1]
    biases = [parameter for parameter in head.parameters() if parameter.ndim == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": settings.weight_decay},
            {"params": biases, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )
    averaged = AveragedModel(head, multi_avg_fn=_moving_average(settings.averaging))
    kept: Any = averaged.module
    generator = torch.Generator().manual_seed(settings.seed)
    held_out_labels = [label for labels in groups.labels(held_out) for label in labels]
    held_out_prompts = torch.tensor([i for i, labels in enumerate(groups.labels(held_out)) for _ in labels])
    report = TrainingReport(len(train), len(held_out), sum(held_out_labels) / len(held_out_labels))
    best: dict[str, torch.Tensor] = {}
    best_value: dict[str, torch.Tensor] = {}
    if state is not None:
        report = TrainingReport(**state.report)
        load_optimizer_tensors(optimizer, state.tensors)
        for module, name in ((head, "head"), (averaged, "averaged")):
            module.load_state_dict(without_prefix(name, state.tensors))
        best, best_value = (without_prefix(name, state.tensors) for name in ("best", "best_value"))
        generator.set_state(state.tensors["random"])
    done = len(report.held_out_loss)
    progress = tqdm(
        range(done, settings.max_epochs),
        desc="Training the head",
        unit="epoch",
        initial=done,
        total=settings.max_epochs,
    )
    for epoch in progress:
        if epoch and epoch - 1 - report.best_epoch >= settings.patience:
            break
        total, count = 0.0, 0
        for batch in groups.batches(train, settings.prompts_per_batch, generator):
            rewards, values = batch_outputs(head, batch, mean, std)
            _check_finite(rewards, batch)
            loss = loss_of(rewards, batch.labels, batch.prompts)
            optimizer.zero_grad()
            prefixes = 0.0 if values is None else prefix_cross_entropy(values, batch.lengths, batch.labels)
            (loss + prefixes).backward()
            optimizer.step()
            averaged.update_parameters(head)
            total, count = total + float(loss.detach()) * len(batch.labels), count + len(batch.labels)
        held_out_rewards, prefix_loss = _held_out(kept, groups, held_out, settings.prompts_per_batch, mean, std)
        held_out_loss = float(loss_of(held_out_rewards, torch.tensor(held_out_labels), held_out_prompts))
        report.train_loss.append(total / count)
        report.held_out_loss.append(held_out_loss)
        progress.set_postfix(train=f"{total / count:.4f}", held_out=f"{held_out_loss:.4f}")
        if prefix_loss is not None:
            report.held_out_prefix_loss.append(prefix_loss)
            if prefix_loss == min(report.held_out_prefix_loss):
                report.best_value_epoch = epoch
                best_value = {
                    name: tensor.clone() for name, tensor in kept.state_dict().items() if name in head.value_parameters
                }
        # Not `<=`: a loss that stays as it is must not keep the training going
        if held_out_loss < (report.held_out_loss[report.best_epoch] if best else math.inf):
            report.best_epoch = epoch
            report.held_out_best_of_n = accuracy_of_best(held_out_rewards, groups.labels(held_out))
            best = {name: value.detach().clone() for name, value in kept.state_dict().items()}
        if checkpoint is not None:
            tensors = {"mean": mean, "std": std, "random": generator.get_state(), **optimizer_tensors(optimizer)}
            for name, own in (("head", head.state_dict()), ("averaged", averaged.state_dict())):
                tensors |= prefixed(name, own)
            tensors |= prefixed("best", best) | prefixed("best_value", best_value)
            TrainingState(tensors, asdict(report)).save(checkpoint, run)
    if not best:
        raise ValueError(
            f"No epoch had a finite held-out loss: the training diverged. Lower learning_rate={settings.learning_rate}."
        )
    head.load_state_dict(best | best_value)
    if settings.loss != "binary_cross_entropy":
        held_out_rewards, _ = _held_out(head, groups, held_out, settings.prompts_per_batch, mean, std)
        make_log_odds(head, held_out_rewards, held_out_labels)
    if settings.standardization is not None:
        head.fold_standardization(mean, std)
    scored = score_rollouts(rollouts, head, held_out, groups.subsampled)
    for name, fitted in fit_decisions(scored, not groups.subsampled).items():
        setattr(head.config, name, fitted)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    logger.info(f"Kept epoch {report.best_epoch} with held-out loss {min(report.held_out_loss):.4f}.")
    return head.eval(), report


def batch_outputs(
    head: ElhsrRewardHead, batch: Batch, mean: torch.Tensor, std: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(rollouts,) rewards R and (tokens,) values v_t, if it has them, of a head whose weights act on standardised
    features. R is the gated mean over the tokens that were recorded.

    The standardisation is applied to the weights, which are few, and not to the features, which are many.
    """
    outputs = head.token_outputs(batch.features, mean, std)
    summands = head.aggregation.summands(outputs)
    sums = torch.zeros(len(batch.labels), summands.shape[-1]).index_add(0, batch.rollout, summands)
    return head.aggregation.rewards(sums), outputs.values


def _refuse_nothing_to_compare(groups: PromptGroups, loss: str, **parts: list[str]) -> None:
    for name, prompts in parts.items():
        if not any(len(set(labels)) == 2 for labels in groups.labels(prompts)):
            raise ValueError(
                f"The loss {loss!r} compares right with wrong rollouts of the same prompt, and no "
                f"{name.replace('_', '-')} prompt has both: sample more prompts, or choose another loss, such as "
                "'binary_cross_entropy'."
            )


def _refuse_one_class(groups: PromptGroups, **parts: list[str]) -> None:
    for name, prompts in parts.items():
        if len({label for labels in groups.labels(prompts) for label in labels}) < 2:
            raise ValueError(
                f"All {name.replace('_', '-')} rollouts have the same label, so there is nothing to learn from: sample "
                "more prompts, or choose a task that the model solves sometimes."
            )


def _check_finite(rewards: torch.Tensor, batch: Batch) -> None:
    # The rewards show it at no cost, since no weight, not even zero, makes NaN or infinity finite
    if not bool(torch.isfinite(rewards.detach()).all()):
        batch.check_finite()


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    @torch.no_grad()
    def update(averaged: Any, current: Any, steps: Any) -> None:
        weight = 1 - min(decay, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(averaged, current, weight)

    return update


@torch.no_grad()
def _held_out(
    head: ElhsrRewardHead,
    groups: PromptGroups,
    prompts: list[str],
    prompts_per_batch: int,
    mean: torch.Tensor,
    std: torch.Tensor,
) -> tuple[torch.Tensor, float | None]:
    """(rollouts,) rewards R, and the prefix loss of heads with values."""
    rewards, values, lengths, labels = [], [], [], []
    for batch in groups.batches(prompts, prompts_per_batch):
        batch_rewards, batch_values = batch_outputs(head, batch, mean, std)
        _check_finite(batch_rewards, batch)
        rewards.append(batch_rewards)
        if batch_values is not None:
            values.append(batch_values.double())
        lengths.append(batch.lengths)
        labels.append(batch.labels)
    if not values:
        return torch.cat(rewards), None
    prefix_loss = prefix_cross_entropy(torch.cat(values), torch.cat(lengths), torch.cat(labels))
    return torch.cat(rewards), float(prefix_loss)


def accuracy_of_best(rewards: torch.Tensor, labels: list[list[bool]]) -> float:
    """Share of prompts whose rollout with the highest reward is right; `labels` are by prompt."""
    chosen = [
        group_labels[int(group_rewards.argmax())]
        for group_rewards, group_labels in zip(rewards.split([len(group) for group in labels]), labels, strict=True)
    ]
    return sum(chosen) / len(chosen)
