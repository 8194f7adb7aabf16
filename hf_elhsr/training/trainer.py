"""RewardHeadTrainer: trains a head on rollouts, stops early on held-out prompts, and fits the head's decisions."""

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel
from transformers.utils import logging
from transformers.utils.logging import tqdm

from .._files import is_leftover
from .._locks import owning
from ..decisions.fit import fit_decisions, fit_line
from ..head.modeling_elhsr import ElhsrRewardHead, make_head
from ..rollouts import RolloutSet
from ..rollouts.scoring import score_rollouts
from .checkpoint import (
    TrainingState,
    load_optimizer_tensors,
    optimizer_tensors,
    prefixed,
    without_prefix,
)
from .data import Batch, PromptGroups, feature_statistics
from .early_stopping import TrainingReport, best_epoch, has_ended, went_too_far
from .losses import LOSSES, prefix_cross_entropy
from .settings import RewardHeadTrainingArguments

logger = logging.get_logger(__name__)


class RewardHeadTrainer:
    """Trains a reward head on rollouts with recorded features; the language model is not needed.

        trainer = RewardHeadTrainer(rollouts, RewardHeadTrainingArguments(max_epochs=20))
        report = trainer.train()
        trainer.head.save_pretrained("my-head")

    Features are standardised to mean 0 and variance 1 over the training tokens, unless `args` turn that off, and the
    standardisation is folded into the weights of the trained head. The rows of R and the row of V_t are trained
    together but share only the pass over the features. Losses that only compare rewards leave their scale and origin
    open: unless the loss itself makes R log-odds, R becomes a R + b with the a > 0 and b that make sigmoid(R) the best
    estimate of P(correct) on the held-out prompts, which changes no winner. Finally, calibration, pruning and adaptive
    n are fitted on the held-out prompts.

    Args:
        rollouts: A set with the features of all tokens.
        args: Default: `RewardHeadTrainingArguments.preset("default", signal)` for the signal that was recorded.
        checkpoint: A file that keeps the state after every epoch, so that a killed training resumes where it stopped,
            with the same result to the bit. While training, no other process may use the same file. A damaged one is
            set aside, with a warning, and training starts again. Delete it once the head is saved: until then, the head
            can be had again by another call of [`train`], which has nothing left to train. Default: no file is kept.

    Attributes:
        head: After `train`, the head with the weights of the best epoch; before, the head that training starts from.

    Raises:
        ValueError: Prompts are missing, duplicate or too few, layers were not recorded, labels are all of one class,
            or a file is damaged (the message names it).
    """

    head: ElhsrRewardHead

    def __init__(
        self,
        rollouts: RolloutSet,
        args: RewardHeadTrainingArguments | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        self.args = args or RewardHeadTrainingArguments.preset("default", rollouts.config.signal)
        self.rollouts = rollouts
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self._loss = LOSSES[self.args.loss]
        rollouts.check_complete()
        self._groups = PromptGroups(rollouts, self.args.head_config(rollouts.config), self.args.prompts)
        if self._groups.subsampled:
            logger.warning(
                "Some tokens of these rollouts were left out for a disk budget, so the head gets no row of V_t, which "
                "learns from whole prefixes, and no pruning schedule before `hf-elhsr calibrate` fits one."
            )
        self._train_prompts, self._held_out_prompts = self._groups.split(self.args.held_out, self.args.seed)
        self._check_labels("training", self._train_prompts)
        self._check_labels("held-out", self._held_out_prompts)
        self._held_out_labels = self._groups.labels(self._held_out_prompts)
        self.head = self._new_head()

    def train(self) -> TrainingReport:
        """Train the head, or resume from the checkpoint.

        Returns:
            What happened, epoch by epoch.

        Raises:
            ValueError: A feature is NaN or infinite (the message names the file), the training diverged, or another
                process uses the checkpoint.
            OSError: The checkpoint cannot be written.
        """
        if self.checkpoint is None:
            return self._train()
        with owning(self.checkpoint.parent, self.checkpoint.name):
            for left in self.checkpoint.parent.glob(f"{self.checkpoint.name}.*"):
                if is_leftover(left.name):
                    left.unlink()
            return self._train()

    def _train(self) -> TrainingReport:
        self._start_or_resume()
        epochs = self.report.held_out_loss
        with tqdm(desc="Training the head", unit="epoch", initial=len(epochs), total=self.args.max_epochs) as progress:
            while not has_ended(epochs, self.args):
                train_loss = self._train_epoch()
                rewards, prefix_loss = self._evaluate(self._averaged.module)
                held_out_loss = self._held_out_loss(rewards)
                self.report.train_loss.append(train_loss)
                self.report.held_out_loss.append(held_out_loss)
                progress.set_postfix(train=f"{train_loss:.4f}", held_out=f"{held_out_loss:.4f}")
                self._keep_best(rewards)
                if prefix_loss is not None:
                    self.report.held_out_prefix_loss.append(prefix_loss)
                    self._keep_best_value()
                self._save_checkpoint()
                progress.update()
        self._finish()
        return self.report

    def _check_labels(self, part: str, prompts: list[str]) -> None:
        labels = self._groups.labels(prompts)
        if len({label for own in labels for label in own}) < 2:
            raise ValueError(
                f"All {part} rollouts have the same label, so there is nothing to learn from: sample more prompts, or "
                "use a task that the model solves sometimes."
            )
        if self._loss.compares and not any(len(set(own)) == 2 for own in labels):
            raise ValueError(
                f"The loss {self.args.loss!r} compares correct with incorrect rollouts of the same prompt, and no "
                f"{part} prompt has both: sample more prompts, or use a different loss, such as 'binary_cross_entropy'."
            )

    def _new_head(self) -> ElhsrRewardHead:
        config = self.args.head_config(self.rollouts.config)
        config.value = not self._groups.subsampled
        head = make_head(config)
        start_at_base_rate(head, self._loss.log_odds, self._groups.labels(self._train_prompts))
        return head

    def _start_or_resume(self) -> None:
        state = self._saved_state()
        self._start()
        if state is not None:
            self._resume(state)
            return
        self._mean, self._std = self._feature_statistics()
        labels = [label for own in self._held_out_labels for label in own]
        base_rate = sum(labels) / len(labels)
        self.report = TrainingReport(len(self._train_prompts), len(self._held_out_prompts), base_rate)

    def _start(self) -> None:
        self.head = self._new_head()
        self._optimizer = torch.optim.AdamW(
            [
                {
                    "params": [row for row in self.head.parameters() if row.ndim > 1],
                    "weight_decay": self.args.weight_decay,
                },
                {"params": [bias for bias in self.head.parameters() if bias.ndim == 1], "weight_decay": 0.0},
            ],
            lr=self.args.learning_rate,
        )
        self._averaged: Any = AveragedModel(self.head, multi_avg_fn=_moving_average(self.args.averaging))
        self._random = torch.Generator().manual_seed(self.args.seed)
        self._best: dict[str, torch.Tensor] = {}
        self._best_value: dict[str, torch.Tensor] = {}

    def _feature_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.args.standardization is None:
            width = self.head.config.num_features
            return torch.zeros(width), torch.ones(width)
        return feature_statistics(self._groups, self._train_prompts, self.args.prompts_per_batch)

    def _train_epoch(self) -> float:
        """Train for one pass over the prompts; returns the mean loss of R, weighted by the batches' rollouts."""
        total, count = 0.0, 0
        for batch in self._groups.batches(self._train_prompts, self.args.prompts_per_batch, self._random):
            rewards, values = batch_outputs(self.head, batch, self._mean, self._std)
            _check_finite(rewards, batch)
            loss = self._loss.function(rewards, batch.labels, batch.prompts)
            prefix_loss = 0.0 if values is None else prefix_cross_entropy(values, batch.lengths, batch.labels)
            self._optimizer.zero_grad()
            (loss + prefix_loss).backward()
            self._optimizer.step()
            self._averaged.update_parameters(self.head)
            total, count = total + float(loss.detach()) * len(batch.labels), count + len(batch.labels)
        return total / count

    @torch.no_grad()
    def _evaluate(self, head: ElhsrRewardHead) -> tuple[torch.Tensor, float | None]:
        """Rewards R of the held-out rollouts, (rollouts,), and the prefix loss if the head has V_t."""
        rewards, values, lengths, labels = [], [], [], []
        for batch in self._groups.batches(self._held_out_prompts, self.args.prompts_per_batch):
            batch_rewards, batch_values = batch_outputs(head, batch, self._mean, self._std)
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

    def _held_out_loss(self, rewards: torch.Tensor) -> float:
        labels = torch.tensor([float(label) for own in self._held_out_labels for label in own])
        prompts = torch.tensor([prompt for prompt, own in enumerate(self._held_out_labels) for _ in own])
        return float(self._loss.function(rewards, labels, prompts))

    def _keep_best(self, rewards: torch.Tensor) -> None:
        epoch = len(self.report.held_out_loss) - 1
        self.report.best_epoch = best_epoch(self.report.held_out_loss)
        if self.report.best_epoch == epoch:
            self.report.held_out_best_of_n = accuracy_of_best(rewards, self._held_out_labels)
            self._best = {name: row.detach().clone() for name, row in self._averaged.module.state_dict().items()}

    def _keep_best_value(self) -> None:
        losses = self.report.held_out_prefix_loss
        if losses[-1] == min(losses):
            self.report.best_value_epoch = len(losses) - 1
            rows = self._averaged.module.state_dict()
            self._best_value = {name: row.clone() for name, row in rows.items() if name in self.head.value_parameters}

    def _finish(self) -> None:
        """Give the head the best weights, make R log-odds, fold the standardisation and fit the decisions."""
        if not self._best:
            raise ValueError(
                "No epoch had a finite held-out loss: the training diverged. Lower "
                f"learning_rate={self.args.learning_rate}."
            )
        self.head.load_state_dict(self._best | self._best_value)
        if not self._loss.log_odds:
            self._make_log_odds()
        if self.args.standardization is not None:
            self.head.fold_standardization(self._mean, self._std)
        whole = not self._groups.subsampled
        scored = score_rollouts(self.rollouts, self.head, self._held_out_prompts, subsampled=not whole)
        for name, fitted in fit_decisions(scored, whole).items():
            setattr(self.head.config, name, fitted)
        losses = self.report.held_out_loss
        logger.info(f"Kept epoch {self.report.best_epoch} with held-out loss {min(losses):.4f}.")
        self.head.eval()

    def _make_log_odds(self) -> None:
        """Scale and shift R so that sigmoid(R) estimates P(correct) on the held-out prompts."""
        rewards, _ = self._evaluate(self.head)
        labels = np.array([label for own in self._held_out_labels for label in own])
        try:
            line = fit_line(rewards.double().numpy(), labels)
        except ValueError as error:
            logger.warning(f"sigmoid(R) of this head does not estimate P(correct). {error}")
            return
        self.head.transform("reward", line.slope, line.offset)

    def _identity(self) -> dict[str, Any]:
        """What must agree with a checkpoint for this training to resume from it."""
        # A resumed training may have more epochs or more patience than it started with
        free = ("max_epochs", "patience")
        settings = {name: value for name, value in asdict(self.args).items() if name not in free}
        # Rollouts can be labelled again while their settings stay the same
        labels = str(self._groups.labels(self._groups.prompts))
        return settings | {"on": self.rollouts.settings, "labels_sha256": hashlib.sha256(labels.encode()).hexdigest()}

    def _saved_state(self) -> TrainingState | None:
        if self.checkpoint is None:
            return None
        try:
            state = TrainingState.load(self.checkpoint, self._identity())
        except ValueError as error:
            self._set_aside(error)
            return None
        if state is not None and went_too_far(state.report["held_out_loss"], self.args):
            logger.warning(f"{str(self.checkpoint)!r} has more epochs than are asked for now: overwriting it.")
            return None
        return state

    def _set_aside(self, error: ValueError) -> None:
        """Keep a damaged checkpoint under another name, so that it is in nobody's way."""
        if self.checkpoint is not None:
            aside = self.checkpoint.with_name(self.checkpoint.name + ".damaged")
            self.checkpoint.replace(aside)
            logger.warning(f"{error} It is now {str(aside)!r}, and training starts again.")

    def _resume(self, state: TrainingState) -> None:
        # Copies: products of tensors that lie unaligned in a file's buffer are rounded differently on some processors
        self._mean, self._std = state.tensors["mean"].clone(), state.tensors["std"].clone()
        self.report = TrainingReport(**state.report)
        load_optimizer_tensors(self._optimizer, state.tensors)
        self.head.load_state_dict(without_prefix("head", state.tensors))
        self._averaged.load_state_dict(without_prefix("averaged", state.tensors))
        self._best = without_prefix("best", state.tensors)
        self._best_value = without_prefix("best_value", state.tensors)
        self._random.set_state(state.tensors["random"])

    def _save_checkpoint(self) -> None:
        if self.checkpoint is None:
            return
        tensors = {"mean": self._mean, "std": self._std, "random": self._random.get_state()}
        tensors |= optimizer_tensors(self._optimizer)
        tensors |= prefixed("head", self.head.state_dict()) | prefixed("averaged", self._averaged.state_dict())
        tensors |= prefixed("best", self._best) | prefixed("best_value", self._best_value)
        TrainingState(tensors, asdict(self.report)).save(self.checkpoint, self._identity())


@torch.no_grad()
def start_at_base_rate(head: ElhsrRewardHead, log_odds: bool, labels: list[list[bool]]) -> None:
    """Set the biases of rows that learn by cross-entropy to the log-odds of the labels; weights are 0 before training.

    A bias that starts at 0 would not reach them within a few epochs. The weights would, along directions in which all
    tokens are alike, and with few prompts the held-out loss could rise before they separate correct from incorrect.

    Args:
        log_odds: Whether the loss makes R log-odds; if not, R starts at 0.
        labels: Labels of the training rollouts by prompt, with both classes.
    """
    correct = [float(label) for own in labels for label in own]
    start = math.log(sum(correct)) - math.log(len(correct) - sum(correct))
    if log_odds:
        head.transform("reward", 1.0, start)
    if head.config.value:
        head.transform("value", 1.0, start)


def batch_outputs(
    head: ElhsrRewardHead, batch: Batch, mean: torch.Tensor, std: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rewards R, (rollouts,), and values v_t, (tokens,), if there are any, of a head that reads standardised features.

    R is the gated mean over the tokens that were recorded. The standardisation is applied to the weights, which are
    few, and not to the features, which are many.
    """
    outputs = head.token_outputs(batch.features, mean, std)
    summands = head.aggregation.summands(outputs)
    sums = torch.zeros(len(batch.labels), summands.shape[-1]).index_add(0, batch.rollout, summands)
    return head.aggregation.rewards(sums), outputs.values


def _check_finite(rewards: torch.Tensor, batch: Batch) -> None:
    # Checking the rewards costs nothing, and no weight, not even zero, makes NaN or infinity finite
    if not bool(torch.isfinite(rewards.detach()).all()):
        batch.check_finite()


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    @torch.no_grad()
    def update(averaged: Any, current: Any, steps: Any) -> None:
        weight = 1 - min(decay, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(averaged, current, weight)

    return update


def accuracy_of_best(rewards: torch.Tensor, labels: list[list[bool]]) -> float:
    """Share of prompts whose rollout with the highest reward is correct; `labels` are by prompt."""
    correct = [
        group_labels[int(group_rewards.argmax())]
        for group_rewards, group_labels in zip(rewards.split([len(group) for group in labels]), labels, strict=True)
    ]
    return sum(correct) / len(correct)
