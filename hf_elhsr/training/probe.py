"""train_last_token_probe: logistic regression on the last layer's state at the last token of every rollout."""

import torch

from ..rewards.baselines import LastTokenProbe
from ..rollouts import RolloutSet
from .data import PromptGroups
from .ridge_path import LabelledRows, fit_ridge_path

# With few features, weaker penalties than a refit's are worth trying
_RIDGES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)


def train_last_token_probe(
    rollouts: RolloutSet, held_out: float = 0.2, seed: int = 0, prompts: int | None = None
) -> LastTokenProbe:
    """Fit a baseline on the rollouts that a head is trained on, with the ridge that is best on its held-out prompts.

    Args:
        rollouts: A set with features of hidden states; the last layer that was recorded is read.
        held_out, seed, prompts: As in [`RewardHeadTrainingArguments`], so that a probe and a head learn from the
            same prompts.

    Raises:
        ValueError: Prompts are missing, the rollouts have no hidden states, features are not finite, or training
            labels are all of one class.
    """
    rollouts.check_complete()
    if not rollouts.config.layers:
        raise ValueError(
            f"A probe reads hidden states, but these rollouts have {rollouts.config.signal!r}: sample again."
        )
    groups = PromptGroups(rollouts, first=prompts)
    width = rollouts.config.hidden_size
    train, held = (_last_tokens(groups, part, width) for part in groups.split(held_out, seed))
    if not 0 < float(train.labels.mean()) < 1:
        raise ValueError("All training rollouts have the same label, so there is nothing to learn from: sample more.")
    path = fit_ridge_path(train, held, "Fitting the probe", _RIDGES)
    return LastTokenProbe(rollouts.config.layers[-1], path.weight, float(path.bias))


def _last_tokens(groups: PromptGroups, prompts: list[str], width: int) -> LabelledRows:
    features, labels = [], []
    for batch in groups.batches(prompts, 16):
        batch.check_finite()
        # Indexing copies, as it must: the batch after the next is read into the same memory
        features.append(batch.features[batch.lengths.cumsum(0) - 1, -width:])
        labels.append(batch.labels)
    return LabelledRows(torch.cat(features), torch.cat(labels))
