# Made by hf_elhsr 0.1.0 from its hf_elhsr/decisions/pruning.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""Pruning: which running candidates are hopeless, judged from running sums every few tokens.

At every check, a candidate's logit z estimates how likely it is to be right:

    z = p_0 + p_1 x_1 + ... + p_k x_k     running, x the prefix features after t tokens, p of the check at t
    z = f_0 + f_1 x_1                     finished, x_1 the final reward R

and what would be lost by dropping it is estimated from z, from the best z among the prompt's candidates, and from
whether that one is finished (e = 1) or not (e = 0), so that its logit may still fall:

    v = sigmoid(v_0 + v_1 z + v_2 z_best + e (v_3 + v_4 z_best))     by how much P(right) of the winner falls

A running candidate is dropped where v is below a price. So the price is the accuracy given up for a candidate's
remaining tokens, one number, the same at all checks and for all prompts: that is what makes the loss least for the
tokens saved. All p, f and v come from rollouts (see `decisions/fit.py`); the price is chosen by the regret.
"""

from dataclasses import dataclass
from typing import Any

import torch

from .decisions_tolerance import setting_for

#: Below every gate that a head produces in practice, above zero, so that the logarithm exists.
_GATE_FLOOR = 1e-6


def prefix_features(
    weighted_sum: torch.Tensor,
    gate_sum: torch.Tensor,
    reward_sum: torch.Tensor,
    steps: torch.Tensor,
    eps: float,
    value_sum: torch.Tensor | None = None,
) -> torch.Tensor:
    """What is known of a candidate after t tokens: R_t, the plain mean of r_t, the log of the mean gate, and V_t.

    The plain mean is there because the gates were trained to weigh whole completions: early on they are small, and
    R_t hangs on a few tokens.

    Args:
        weighted_sum, gate_sum, reward_sum: sum g_t r_t, sum g_t and sum r_t over the tokens so far, any shape.
        steps: How many tokens that is, the same shape, at least 1.
        eps: The head's `config.eps`.
        value_sum: sum v_t, for heads with `config.value`.

    Returns:
        (..., 3), or (..., 4) with values, in the dtype of the sums; the first is the running reward, for a finished
        candidate its reward R.
    """
    rewards = weighted_sum / gate_sum.clamp_min(eps)
    known = [rewards, reward_sum / steps, (gate_sum / steps).clamp_min(_GATE_FLOOR).log()]
    return torch.stack(known if value_sum is None else [*known, value_sum / steps], dim=-1)


@dataclass(frozen=True)
class PruningSchedule:
    """When candidates are checked, and the numbers of the rule in this module's docstring.

    Args:
        interval: Checks are after interval, 2 interval, ... tokens; past the last fitted check its numbers hold on.
        prefix: (checks, 1 + k): p_0 ... p_k.
        final: (2,): f_0 and f_1.
        value: (checks, 5): v_0 ... v_4.
        price: Running candidates with v below it are dropped; 0 drops none.
    """

    interval: int
    prefix: list[list[float]]
    final: list[float]
    value: list[list[float]]
    price: float

    @classmethod
    def from_config(cls, config: dict[str, Any] | None, regret: float) -> "PruningSchedule":
        """The schedule for a regret, from a head's `config.pruning`.

        Args:
            regret: How much accuracy may be given up, as a share of prompts, e.g. 0.01.

        Raises:
            ValueError: The head has no schedule, or none for so small a regret.
        """
        if config is None:
            raise ValueError(
                "This reward head has no pruning schedule. Training fits one on the held-out prompts, if all tokens of "
                "them were recorded; `hf-elhsr calibrate` does on rollouts of other prompts, by `hf-elhsr evaluate`."
            )
        return cls.with_price(config, setting_for(config["prices"], regret, "prune"))

    @classmethod
    def with_price(cls, config: dict[str, Any], price: float) -> "PruningSchedule":
        """The schedule of a head's `config.pruning` at a price of one's own."""
        return cls(config["interval"], config["prefix"], config["final"], config["value"], price)


def hopeless(
    schedule: PruningSchedule,
    features: torch.Tensor,
    running: torch.Tensor,
    pruned: torch.Tensor,
    steps: torch.Tensor | int,
) -> torch.Tensor:
    """Which candidates to drop now.

    The best candidate of a prompt is never dropped, and what happens to a prompt depends on its own candidates alone.

    Args:
        features: (batch, n, k) float, of the tokens so far, see [`prefix_features`]. Those of finished candidates are
            of the whole completion; those of pruned and not yet begun ones are not looked at.
        running: (batch, n) bool: begun, neither finished nor pruned.
        pruned: (batch, n) bool: out of the running for good, or not begun.
        steps: Sampled tokens so far: (batch, n) long, or one number for all.

    Returns:
        (batch, n) bool, true for candidates to drop: only running ones at a check.
    """
    steps = torch.as_tensor(steps, device=features.device).expand(running.shape)
    check = steps // schedule.interval - 1
    last = len(schedule.prefix) - 1
    numbers = features.float()
    prefix, value = (numbers.new_tensor(table)[check.clamp(0, last)] for table in (schedule.prefix, schedule.value))
    unfinished = prefix[..., 0] + (prefix[..., 1:] * numbers).sum(-1)
    finished = schedule.final[0] + schedule.final[1] * numbers[..., 0]
    logits = torch.where(running, unfinished, finished)
    # Before its first check nothing is known of a candidate
    logits = logits.masked_fill(pruned | (running & (check < 0)), -torch.inf)
    best, leader = logits.max(dim=-1, keepdim=True)
    leader_finished = ~running.gather(-1, leader)
    of_best = value[..., 2] + leader_finished * value[..., 4]
    lost = torch.sigmoid(value[..., 0] + leader_finished * value[..., 3] + value[..., 1] * logits + of_best * best)
    due = running & ~pruned & (check >= 0) & (steps % schedule.interval == 0)
    return due & (logits < best) & (lost < schedule.price)
