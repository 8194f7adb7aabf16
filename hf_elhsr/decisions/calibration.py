"""Calibration: from a reward R to a probability, P(correct) = sigmoid(slope R + offset)."""

from dataclasses import dataclass
from typing import Any

import torch

from .._checks import is_number, quoted
from .decision import Decision, check, check_counts


@dataclass(frozen=True)
class Line:
    """Temperature scaling with an offset (Platt): P(correct) = sigmoid(slope R + offset).

    Args:
        slope: Above zero, so that the order of candidates stays: the reciprocal of the temperature.
        offset: Moves all logits; zero where rewards are calibrated on average already.

    Raises:
        ValueError: The slope or the offset is not a finite number, or the slope is not above zero.
    """

    slope: float
    offset: float

    def __post_init__(self) -> None:
        check("slope", self.slope, "a number above 0", is_number(self.slope) and self.slope > 0)
        check("offset", self.offset, "a number", is_number(self.offset))

    def probability(self, rewards: torch.Tensor) -> torch.Tensor:
        """P(correct) for rewards of any shape, in their dtype."""
        return torch.sigmoid(self.slope * rewards + self.offset)


@dataclass(frozen=True)
class Calibration(Decision):
    """P(correct) of any candidate, and of the best of n.

    A winner is a maximum over candidates, so a candidate's own calibration is too optimistic about it: among equally
    good candidates the one whose reward errs upwards wins. `winner` is fitted on winners and gives confidences.

    Args:
        slope, offset: For any single candidate, see [`Line`].
        winner: For the best of n.
        n: Candidates per prompt that `winner` was fitted with.
        prompts: How many held-out prompts it was fitted on.
    """

    name = "calibration"
    missing = (
        "This reward head has no calibration, so its rewards give no probability: train it with this version of "
        "hf_elhsr, which fits one on the held-out prompts."
    )

    slope: float
    offset: float
    winner: Line
    n: int
    prompts: int

    def __post_init__(self) -> None:
        Line(self.slope, self.offset)
        object.__setattr__(self, "winner", _line(self.winner))
        check_counts(n=self.n, prompts=self.prompts)

    @property
    def candidate(self) -> Line:
        """The line for any single candidate."""
        return Line(self.slope, self.offset)


def _line(given: Any) -> Line:
    if isinstance(given, Line):
        return given
    try:
        return Line(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"winner must be a slope above 0 and an offset, got {quoted(given)}") from error
