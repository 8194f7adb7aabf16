"""Pruning: which running candidates are hopeless, estimated from running sums every few tokens.

At every check, a candidate's logit z estimates how likely it is to be correct:

    z = p_0 + p_1 x_1 + ... + p_k x_k     running, x the prefix features after t tokens, p of the check at t
    z = f_0 + f_1 x_1                     finished, x_1 the final reward R

and the loss of dropping it is estimated from z, from the best z among the prompt's candidates, and from whether that
candidate is finished (e = 1) or its logit may still fall (e = 0):

    v = sigmoid(v_0 + v_1 z + v_2 z_best + e (v_3 + v_4 z_best))     how much P(correct) of the winner falls

A running candidate is dropped if v is below a price. So the price is the accuracy given up for a candidate's remaining
tokens. It is one number for all checks and all prompts, which loses least accuracy for the tokens saved. All p, f and v
are fitted on rollouts (see `fit.py`); the price follows from the tolerance.
"""

from dataclasses import dataclass

import torch

from .decision import (
    Decision,
    check,
    check_counts,
    check_settings,
    rows_of_numbers,
    setting_for,
)


@dataclass(frozen=True)
class PruningRule:
    """When candidates are checked, and the numbers of the rule in this module's docstring.

    Args:
        interval: Checks come after interval, 2 interval, ... tokens; past the last fitted check, its numbers are used.
        prefix: (checks, 1 + k): p_0 ... p_k.
        final: (2,): f_0 and f_1.
        value: (checks, 5): v_0 ... v_4.
        price: Running candidates with v below it are dropped; 0 drops none.
    """

    interval: int
    prefix: tuple[tuple[float, ...], ...]
    final: tuple[float, ...]
    value: tuple[tuple[float, ...], ...]
    price: float = 0.0

    def hopeless(
        self, features: torch.Tensor, running: torch.Tensor, pruned: torch.Tensor, steps: torch.Tensor | int
    ) -> torch.Tensor:
        """Which candidates to drop now.

        The best candidate of a prompt is never dropped, and a prompt's result depends on its own candidates alone.

        Args:
            features: (batch, n, k) float, of the tokens so far, see `Aggregation.prefix_features`. For finished
                candidates they cover the whole completion; those of pruned and not yet started ones are ignored.
            running: (batch, n) bool: started, neither finished nor pruned.
            pruned: (batch, n) bool: pruned, or not started.
            steps: Sampled tokens so far: (batch, n) long, or one number for all.

        Returns:
            (batch, n) bool, true for candidates to drop: only running ones at a check.
        """
        steps = torch.as_tensor(steps, device=features.device).expand(running.shape)
        number = steps // self.interval - 1
        last = len(self.prefix) - 1
        numbers = features.float()
        prefix, value = (numbers.new_tensor(table)[number.clamp(0, last)] for table in (self.prefix, self.value))
        unfinished = prefix[..., 0] + (prefix[..., 1:] * numbers).sum(-1)
        finished = self.final[0] + self.final[1] * numbers[..., 0]
        logits = torch.where(running, unfinished, finished)
        # Nothing is known about a candidate before its first check
        logits = logits.masked_fill(pruned | (running & (number < 0)), -torch.inf)
        best, leader = logits.max(dim=-1, keepdim=True)
        leader_finished = ~running.gather(-1, leader)
        of_best = value[..., 2] + leader_finished * value[..., 4]
        lost = torch.sigmoid(value[..., 0] + leader_finished * value[..., 3] + value[..., 1] * logits + of_best * best)
        due = running & ~pruned & (number >= 0) & (steps % self.interval == 0)
        return due & (logits < best) & (lost < self.price)


@dataclass(frozen=True)
class Pruning(Decision):
    """A fitted [`PruningRule`] without its price, and the prices by tolerance.

    Args:
        interval, prefix, final, value: See [`PruningRule`].
        prices: From tolerances, as text, to prices between 0 and 1.
        n: Candidates per prompt that it was fitted with.
        prompts: How many held-out prompts it was fitted on.
    """

    name = "pruning"
    missing = (
        "This reward head has no pruning schedule. Training fits one on the held-out prompts if all their tokens "
        "were recorded; `hf-elhsr calibrate` fits one on rollouts of other prompts, made by `hf-elhsr evaluate`."
    )

    interval: int
    prefix: tuple[tuple[float, ...], ...]
    final: tuple[float, ...]
    value: tuple[tuple[float, ...], ...]
    prices: dict[str, float]
    n: int
    prompts: int

    def __post_init__(self) -> None:
        check_counts(interval=self.interval, n=self.n, prompts=self.prompts)
        prefix, value, final = (rows_of_numbers(rows) for rows in (self.prefix, self.value, [self.final]))
        check("prefix", self.prefix, "rows of at least two numbers, all of the same length", prefix is not None)
        check("final", self.final, "two numbers", final is not None and len(final[0]) == 2)
        check("value", self.value, "rows of five numbers", value is not None and len(value[0]) == 5)
        check_settings("prices", self.prices, "prices between 0 and 1")
        if len(self.prefix) != len(self.value):
            raise ValueError(
                f"prefix and value must each have one row per check, got {len(self.prefix)} and {len(self.value)}"
            )
        object.__setattr__(self, "prefix", prefix)
        object.__setattr__(self, "final", tuple(self.final))
        object.__setattr__(self, "value", value)

    def check_features(self, count: int) -> None:
        width = len(self.prefix[0])
        if width != 1 + count:
            raise ValueError(
                f"The head's config has a damaged pruning: prefix must have rows of {1 + count} numbers, an intercept "
                f"and one for each of the head's {count} features of a prefix, got {width}. Download or save the head "
                "again, or set pruning to null."
            )

    def rule(self, tolerance: float) -> PruningRule:
        """The rule for a tolerance: how much accuracy may be given up, as a share of prompts, e.g. 0.01.

        Raises:
            ValueError: No price was fitted for so small a tolerance.
        """
        return self.at_price(setting_for(self.prices, tolerance, "prune"))

    def at_price(self, price: float) -> PruningRule:
        """The rule at any price, fitted or not."""
        return PruningRule(self.interval, self.prefix, self.final, self.value, price)
