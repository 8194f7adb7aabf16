"""refit_head: with fixed gates R is linear in its weights, as V_t always is, so both rows are solved to the optimum."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging
from transformers.utils.logging import tqdm

from ..decisions.fit import fit_decisions
from ..head.modeling_elhsr import ElhsrRewardHead
from ..rollouts import Rollout, RolloutSet
from ..rollouts.recorders import PREFIX_INTERVAL
from ..rollouts.rollout import by_prompt
from ..rollouts.scoring import score_rollouts
from ..rollouts.shard_arrays import read_pooled_features, read_prefix_means
from .data import Batch, PromptGroups
from .losses import binary_cross_entropy
from .ridge_path import LabelledRows, RidgePath, fit_ridge_path
from .trainer import accuracy_of_best

logger = logging.get_logger(__name__)

# The share of prefixes of 8, 16, ... tokens that are used; the rest are very similar
_PREFIX_SHARE = 0.8
_PROMPTS_AT_ONCE = 16


@dataclass
class RefitReport:
    """What happened in a refit.

    Args:
        train_prompts, held_out_prompts: How many of each; the held-out ones are those of the original training.
        reward, value: For the rows of R and of V_t: `ridges`, `train_loss`, `held_out_loss` and `ridge`, see
            [`RidgePath`], `rows`, the number of rows it was solved on, and `held_out_loss_before`, the loss of the
            original head. `value` is None for heads without V_t.
        held_out_best_of_n: Accuracy of the refitted head's winners on the held-out prompts; slightly optimistic, since
            these prompts selected the ridge.
    """

    train_prompts: int
    held_out_prompts: int
    reward: dict[str, Any]
    value: dict[str, Any] | None
    held_out_best_of_n: float


def refit_head(
    head: ElhsrRewardHead,
    rollouts: RolloutSet,
    pooled: Sequence[RolloutSet] = (),
    held_out: float = 0.2,
    seed: int = 0,
    prompts: int | None = None,
) -> tuple[ElhsrRewardHead, RefitReport]:
    """Solve for the rows of R and V_t with fixed gates; then fit calibration, pruning and adaptive n again.

    Both are logistic regressions: of "the final answer is correct" on sum_t g_t h_t / sum_t g_t, which gives R, and of
    sigmoid(R) of the whole completion on the mean of h_1 ... h_t, which gives V_t. (Given a prefix, sigmoid(R) has the
    expectation of the label but varies less, so fewer prefixes are needed.) Ridges are selected by the labels of the
    held-out prompts. The regression's features are held in memory: 4 * L * d bytes for every rollout, and then for
    every prefix.

    Args:
        head: A head with a gate, from [`RewardHeadTrainer`]. It is not changed.
        rollouts: The rollouts that it was trained on, with the features of all tokens.
        pooled: More rollouts, of other prompts, with features pooled by this head's gates and means of prefixes. Sets
            made before prefixes were recorded are used for R only, with a warning.
        held_out, seed, prompts: The same as in training, so that the same prompts are held out.

    Returns:
        A new head, and what happened.

    Raises:
        ValueError: The head has no gate, pooled features are missing or come from a different head's gates, a prompt is
            duplicate, or features are not finite.
    """
    if not head.config.gate:
        raise ValueError("Expected a head with a gate: without one, training has already solved the same problem.")
    digest = head.digest()
    for more in pooled:
        more.check_complete()
        if more.settings.get("head_sha256") != digest:
            raise ValueError(
                f"The features in {str(more.folder)!r} were not pooled by this head's gates: sample them with "
                "`hf-elhsr sample --pooled-by` and this head."
            )
    rollouts.check_complete()
    groups = PromptGroups(rollouts, head.config, prompts)
    if groups.subsampled and head.config.value:
        raise ValueError(
            f"Some tokens of {str(rollouts.folder)!r} were left out for a disk budget, so the head's row of V_t was "
            "not learned from them: pass the rollouts that the head was trained on."
        )
    train, kept_out = groups.split(held_out, seed)
    _refuse_duplicates([rollouts, *pooled])
    # Kept-out prompts first: the training rows may fill most of the memory
    tested = _reward_rows(head, groups, kept_out)
    rows = _reward_rows(head, groups, train, pooled)
    refitted = copy.deepcopy(head)
    report = RefitReport(
        train_prompts=len(train) + sum(1 for more in pooled for shard, _ in more.shards() for _ in by_prompt(shard)),
        held_out_prompts=len(kept_out),
        reward={"held_out_loss_before": _loss(tested, *head.linear_row("reward"))},
        value=None,
        held_out_best_of_n=float("nan"),
    )
    path = fit_ridge_path(rows, tested, "Refitting R")
    report.reward |= {"rows": len(rows.labels)} | _recorded(path)
    refitted.set_linear_row("reward", path.weight, path.bias)
    if head.config.value:
        # Freed before the prefixes are read
        del rows, tested
        report.value = _refit_value(refitted, groups, train, kept_out, pooled, torch.Generator().manual_seed(seed))
    for name, losses in (("R", report.reward), ("V_t", report.value)):
        if losses is not None and min(losses["held_out_loss"]) >= losses["held_out_loss_before"]:
            logger.warning(
                f"The refitted row of {name} is no better on held-out prompts than the original (loss "
                f"{min(losses['held_out_loss']):.4f} against {losses['held_out_loss_before']:.4f}): refit with more "
                "rollouts, or keep the original head."
            )
    scored = score_rollouts(rollouts, refitted, kept_out, groups.subsampled)
    report.held_out_best_of_n = accuracy_of_best(torch.from_numpy(scored.rewards).flatten(), scored.labels.tolist())
    for name, fitted in fit_decisions(scored, not groups.subsampled).items():
        setattr(refitted.config, name, fitted)
    return refitted.eval(), report


def _refit_value(
    head: ElhsrRewardHead,
    groups: PromptGroups,
    train: list[str],
    kept_out: list[str],
    pooled: Sequence[RolloutSet],
    generator: torch.Generator,
) -> dict[str, Any] | None:
    """Solve for the row of V_t in place; returns what happened, or None, with a warning, if there are no prefixes."""
    tested, _ = _value_rows(head, groups, kept_out, generator)
    rows, expected = _value_rows(head, groups, train, generator, pooled)
    if not len(rows.labels) or not len(tested.labels):
        logger.warning(f"The row of V_t is not refitted: too few completions are longer than {PREFIX_INTERVAL} tokens.")
        return None
    before = _loss(tested, *head.linear_row("value"))
    path = fit_ridge_path(LabelledRows(rows.features, expected), tested, "Refitting V_t")
    head.set_linear_row("value", path.weight, path.bias)
    return {"held_out_loss_before": before, "rows": len(rows.labels)} | _recorded(path)


def _reward_rows(
    head: ElhsrRewardHead, groups: PromptGroups, prompts: list[str], pooled: Sequence[RolloutSet] = ()
) -> LabelledRows:
    """Pooled features of these prompts and of the sets pooled in sampling, with their labels."""
    features, labels = [], []
    for members, file in _pooled_shards(pooled, "Reading pooled features"):
        kept, own_labels = _labels(members)
        features.append(read_pooled_features(file)[kept])
        labels.append(own_labels[kept])
    for batch in _batches(groups, prompts, "Pooling features"):
        features.append(head.pool(batch.features, batch.lengths))
        labels.append(batch.labels)
    return LabelledRows(_joined(features, head.config.num_features), torch.cat(labels))


@torch.no_grad()
def _value_rows(
    head: ElhsrRewardHead,
    groups: PromptGroups,
    prompts: list[str],
    generator: torch.Generator,
    pooled: Sequence[RolloutSet] = (),
) -> tuple[LabelledRows, torch.Tensor]:
    """Prefix means of these prompts and of the sets pooled in sampling, with labels and sigmoid(R) of the whole."""
    features, labels, expected = [], [], []

    def add(means: torch.Tensor, rollout: torch.Tensor, whole: torch.Tensor, own_labels: torch.Tensor) -> None:
        features.append(means)
        labels.append(own_labels[rollout])
        weight, bias = head.linear_row("reward")
        expected.append(torch.sigmoid(whole @ weight + bias)[rollout])

    for members, file in _pooled_shards(_with_prefixes(pooled), "Reading prefixes"):
        kept, own_labels = _labels(members)
        means, rollout = read_prefix_means(file)
        add(means[kept[rollout]], rollout[kept[rollout]], read_pooled_features(file), own_labels)
    for batch in _batches(groups, prompts, "Averaging prefixes"):
        means, rollout = prefix_means(batch, _PREFIX_SHARE, generator)
        add(means, rollout, head.pool(batch.features, batch.lengths), batch.labels)
    return LabelledRows(_joined(features, head.config.num_features), torch.cat(labels)), torch.cat(expected)


def _labels(members: list[Rollout]) -> tuple[torch.Tensor, torch.Tensor]:
    """(rollouts,) bool, true for prompts whose rollouts could all be verified, and (rollouts,) float32 labels."""
    prompts = {group[0].problem for group in by_prompt(members)}
    kept = torch.tensor([rollout.problem in prompts for rollout in members])
    return kept, torch.tensor([float(bool(rollout.label)) for rollout in members])


def _with_prefixes(pooled: Sequence[RolloutSet]) -> list[RolloutSet]:
    for more in pooled:
        if not more.settings.get("prefixes"):
            logger.warning(f"{str(more.folder)!r} was sampled without prefixes, so it is not used for V_t.")
    return [more for more in pooled if more.settings.get("prefixes")]


def _pooled_shards(pooled: Sequence[RolloutSet], description: str) -> Iterator[tuple[list[Rollout], Path]]:
    shards = [shard for more in pooled for shard in more.shards()]
    yield from tqdm(shards, desc=description, unit="shard", disable=not shards)


def _batches(groups: PromptGroups, prompts: list[str], description: str) -> Iterator[Batch]:
    batches = groups.batches(prompts, _PROMPTS_AT_ONCE)
    for batch in tqdm(batches, desc=description, total=-(-len(prompts) // _PROMPTS_AT_ONCE), unit="batch"):
        batch.check_finite()
        yield batch


def prefix_means(batch: Batch, share: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of h_1 ... h_t for some prefixes of t = 8, 16, ... tokens that are shorter than the rollout.

    Args:
        share: The share of all such prefixes, drawn at random.

    Returns:
        (prefixes, L * d) float32, and (prefixes,) long, the rollout of each.
    """
    means, rollouts = [], []
    for rollout, own in enumerate(batch.features.split(batch.lengths.tolist())):
        for steps in range(PREFIX_INTERVAL, len(own), PREFIX_INTERVAL):
            if float(torch.rand((), generator=generator)) < share:
                means.append(own[:steps].mean(dim=0))
                rollouts.append(rollout)
    stacked = torch.stack(means) if means else batch.features[:0]
    return stacked, torch.tensor(rollouts, dtype=torch.long)


def _joined(blocks: list[torch.Tensor], width: int) -> torch.Tensor:
    """Concatenate the blocks' rows; each block is freed once copied, since two copies of all may not fit in memory."""
    joined = torch.empty(sum(len(block) for block in blocks), width)
    row = 0
    blocks.reverse()
    while blocks:
        block = blocks.pop()
        joined[row : row + len(block)] = block
        row += len(block)
    return joined


@torch.no_grad()
def _loss(rows: LabelledRows, weight: torch.Tensor, bias: torch.Tensor) -> float:
    return float(binary_cross_entropy(rows.features @ weight + bias, rows.labels))


def _recorded(path: RidgePath) -> dict[str, Any]:
    return {
        "ridges": path.ridges,
        "train_loss": path.train_loss,
        "held_out_loss": path.held_out_loss,
        "ridge": path.ridge,
    }


def _refuse_duplicates(sets: Sequence[RolloutSet]) -> None:
    seen: dict[str, str] = {}
    for rollouts in sets:
        for problem in dict.fromkeys(rollout.problem for rollout in rollouts.rollouts()):
            if problem in seen:
                raise ValueError(
                    f"Prompt {problem!r} is in {seen[problem]!r} and in {str(rollouts.folder)!r}: held-out prompts "
                    "would be trained on. Sample different prompts with `--skip`."
                )
            seen[problem] = str(rollouts.folder)
