"""The losses that a head can be trained with, as pure functions, and the registry `LOSSES`.

All five come from arXiv:2505.12225.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ..rollouts.recorders import PREFIX_INTERVAL

# Temperature of the labels in InfoNCA and NCA: so low that correct rollouts share the weight evenly
_ALPHA = 0.01


def binary_cross_entropy(rewards: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean of -[y log sigmoid(R) + (1 - y) log(1 - sigmoid(R))]: makes sigmoid(R) an estimate of P(correct).

    Args:
        rewards: (rollouts,) float32.
        labels: (rollouts,), 1 if the final answer is correct.
    """
    return F.binary_cross_entropy_with_logits(rewards, labels.to(rewards))


def prefix_cross_entropy(
    token_values: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor, interval: int = PREFIX_INTERVAL
) -> torch.Tensor:
    """Binary cross-entropy of V_t = (v_1 + ... + v_t) / t against the label, over prefixes of unfinished completions.

    Prefixes have interval, 2 interval, ... tokens and are shorter than the completion; the mean is over all of them.
    So sigmoid(V_t) becomes an estimate of P(correct | first t tokens).

    Args:
        token_values: (tokens,) float32, v_t of all rollouts, one after the other.
        lengths: (rollouts,) long, how many tokens each has.
        labels: (rollouts,), 1 if the final answer is correct.

    Returns:
        A scalar; 0 if no completion is longer than `interval`.
    """
    steps = torch.arange(interval, max(int(lengths.max()), interval + 1), interval, device=lengths.device)
    sums = token_values.cumsum(0)
    last = lengths.cumsum(0)
    first = last - lengths
    before = sums[first] - token_values[first]
    places = (first[:, None] + steps - 1).clamp_max(len(sums) - 1)
    values = (sums[places] - before[:, None]) / steps
    unfinished = lengths[:, None] > steps
    if not bool(unfinished.any()):
        return token_values.sum() * 0.0
    return binary_cross_entropy(values[unfinished], labels[:, None].expand_as(values)[unfinished])


def hinge(rewards: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean of max(0, 1 - s R) with s = 1 for correct and -1 for incorrect rollouts.

    Args:
        rewards: (rollouts,) float32.
        labels: (rollouts,), 1 if the final answer is correct.
    """
    return (1 - (2 * labels.to(rewards) - 1) * rewards).clamp_min(0).mean()


def dpo(rewards: torch.Tensor, labels: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
    """Mean of -log sigmoid(R+ - R-) over all pairs of a correct and an incorrect rollout of the same prompt.

    Args:
        rewards: (rollouts,) float32.
        labels: (rollouts,), 1 if the final answer is correct.
        prompts: (rollouts,) long, which prompt each belongs to.

    Returns:
        A scalar; 0 if no prompt has both kinds.
    """
    members, present = _by_prompt(prompts)
    correct = labels.bool()[members]
    pairs = (correct & present)[:, :, None] & (~correct & present)[:, None]
    if not bool(pairs.any()):
        return rewards.sum() * 0.0
    ahead = rewards[members][:, :, None] - rewards[members][:, None]
    return -F.logsigmoid(ahead[pairs]).mean()


def info_nca(rewards: torch.Tensor, labels: torch.Tensor, prompts: torch.Tensor, alpha: float = _ALPHA) -> torch.Tensor:
    """Mean over prompts of -sum_i softmax(y / alpha)_i log softmax(R)_i, the softmaxes over a prompt's rollouts.

    Args:
        rewards: (rollouts,) float32.
        labels: (rollouts,), y: 1 if the final answer is correct.
        prompts: (rollouts,) long, which prompt each belongs to.
        alpha: Temperature of the labels.
    """
    members, present = _by_prompt(prompts)
    weights = _log_softmax(labels.to(rewards)[members] / alpha, present).exp()
    log_probabilities = _log_softmax(rewards[members], present).masked_fill(~present, 0.0)
    return -(weights * log_probabilities).sum(dim=1).mean()


def nca(rewards: torch.Tensor, labels: torch.Tensor, prompts: torch.Tensor, alpha: float = _ALPHA) -> torch.Tensor:
    """Mean over prompts of -sum_i [softmax(y / alpha)_i log sigmoid(R_i) + 1/K log sigmoid(-R_i)], K its rollouts.

    Args:
        rewards: (rollouts,) float32.
        labels: (rollouts,), y: 1 if the final answer is correct.
        prompts: (rollouts,) long, which prompt each belongs to.
        alpha: Temperature of the labels.
    """
    members, present = _by_prompt(prompts)
    weights = _log_softmax(labels.to(rewards)[members] / alpha, present).exp()
    share = present / present.sum(dim=1, keepdim=True)
    rewards = rewards[members]
    return -(weights * F.logsigmoid(rewards) + share * F.logsigmoid(-rewards)).sum(dim=1).mean()


@dataclass(frozen=True)
class Loss:
    """A loss of the rewards, and what the trainer and the card need to know about it.

    To add a loss, add an entry to [`LOSSES`]; from outside the package, `LOSSES["my_loss"] = Loss(...)`.

    Args:
        title: The name in the model card, at the start of a sentence.
        function: Maps rewards (rollouts,) float32, labels (rollouts,) float32, 1 if the final answer is correct, and
            prompts (rollouts,) long, which prompt each rollout belongs to, to a scalar with a gradient.
        compares: Whether it learns from pairs of rollouts only, so that a prompt whose rollouts are all correct or all
            incorrect teaches it nothing.
        log_odds: Whether its optimum makes R the log-odds of P(correct). If not, R is calibrated after training.
    """

    title: str
    function: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    compares: bool = False
    log_odds: bool = False


#: By the names that [`RewardHeadTrainingArguments`] and `hf-elhsr train --loss` take.
LOSSES: dict[str, Loss] = {
    "binary_cross_entropy": Loss(
        "Binary cross-entropy",
        lambda rewards, labels, prompts: binary_cross_entropy(rewards, labels),
        log_odds=True,
    ),
    "hinge": Loss("Hinge loss", lambda rewards, labels, prompts: hinge(rewards, labels)),
    "dpo": Loss("DPO's loss", dpo, compares=True),
    "info_nca": Loss("InfoNCA's loss", info_nca, compares=True),
    "nca": Loss("NCA's loss", nca),
}


def _by_prompt(prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(prompts, n) long, which rollouts each prompt has, and (prompts, n) bool, false at padding."""
    _, prompt, counts = prompts.unique(return_inverse=True, return_counts=True)
    members = prompt.argsort(stable=True).split(counts.tolist())
    padded = nn.utils.rnn.pad_sequence(list(members), batch_first=True, padding_value=-1)
    return padded.clamp_min(0), padded >= 0


def _log_softmax(values: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """log softmax over the rollouts of each prompt; minus infinity at padding."""
    return values.masked_fill(~present, -torch.inf).log_softmax(dim=1)
