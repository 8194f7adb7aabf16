"""Tables for the terminal."""

import math

from rich.markup import escape
from rich.table import Table

from ..evaluation import Evaluation


def candidates_table(texts: list[str], rewards: list[float], winner: int, marks: list[str] | None = None) -> Table:
    """Candidates, best first, with reward and P(correct); the winner in bold.

    Args:
        marks: What else to say of each candidate, e.g. whether it is right.
    """
    table = Table(show_lines=True)
    table.add_column("Candidate", justify="right")
    table.add_column("Reward", justify="right")
    table.add_column("P(correct)", justify="right")
    if marks is not None:
        table.add_column("Right?")
    table.add_column("Text")
    for index in sorted(range(len(texts)), key=lambda i: -rewards[i]):
        cells = [str(index + 1), f"{rewards[index]:+.2f}", f"{0.5 + 0.5 * math.tanh(rewards[index] / 2):.1%}"]
        if marks is not None:
            cells.append(marks[index])
        text = escape("".join(c for c in " ".join(texts[index].split()) if c.isprintable()))
        is_winner = index == winner
        table.add_row(*cells, text + (" <- winner" if is_winner else ""), style="bold green" if is_winner else None)
    return table


def evaluation_table(evaluation: Evaluation) -> Table:
    """Accuracy of every strategy, and how far the head is ahead of it."""
    table = Table(title=f"{evaluation.prompts} prompts ({evaluation.split}), n = {evaluation.n}")
    table.add_column("Answer by")
    table.add_column("Right, % [95 % interval]", justify="right")
    table.add_column("Head is ahead by, points", justify="right")
    for name, measured in evaluation.accuracy.items():
        ahead = evaluation.head_minus.get(name)
        table.add_row(
            name, str(measured), "" if ahead is None else str(ahead), style="bold" if name == "reward head" else None
        )
    return table


def explain_columns(evaluation: Evaluation) -> str:
    """The remaining numbers in a sentence."""
    return (
        f"The head closes {evaluation.gap_closed} % of the gap between one sample and the oracle. "
        f"Over all rollouts: AUC {evaluation.area_under_curve:.3f}, "
        f"expected calibration error {evaluation.expected_calibration_error:.3f}."
    )
