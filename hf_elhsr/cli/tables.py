"""Tables for the terminal."""

import math
import re

from rich.table import Table
from rich.text import Text

from ..evaluation import Evaluation, TradeOff
from ..evaluation.tradeoff import PRUNED, UNTRAINED
from ..explanation.texts import visible


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
        is_winner = index == winner
        # On one line; of other characters that part lines the names are shown
        text = Text(visible(re.sub(r"[ \t\n]+", " ", texts[index]).strip(" ")))
        table.add_row(*cells, text.append(" <- winner" if is_winner else ""), style="bold green" if is_winner else None)
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


def tradeoff_table(tradeoff: TradeOff) -> Table:
    """What every regret that the head's config holds saves and costs, then the untrained pruner at as many tokens."""
    table = Table(title=f"{tradeoff.prompts} prompts ({tradeoff.split}), n = {tradeoff.n}")
    table.add_column("Decided by")
    table.add_column("Setting", justify="right")
    table.add_column("Tokens, %", justify="right")
    table.add_column("Right, % [95 % interval]", justify="right")
    table.add_column("Less exact best of n, points", justify="right")
    table.add_row("exact best of n", "", "100.0", str(tradeoff.exact), "")
    rows = [
        (name, f"regret {point.setting:g}", point) for name, points in tradeoff.by_tolerance.items() for point in points
    ]
    for point in tradeoff.by_tolerance[PRUNED]:
        nearest = min(
            tradeoff.curves.get(UNTRAINED, []), key=lambda other: abs(other.tokens - point.tokens), default=None
        )
        if nearest is not None:
            rows.append((UNTRAINED, f"price {nearest.setting:g}", nearest))
    for name, setting, point in rows:
        table.add_row(name, setting, f"{100 * point.tokens:.1f}", str(point.accuracy), str(point.difference))
    return table


def explain_calibration(tradeoff: TradeOff) -> str:
    """Calibration and abstention in sentences."""
    errors = "; ".join(
        f"{name}: expected error {error.expected_calibration_error:.3f}, Brier score {error.brier_score:.3f}"
        for name, error in tradeoff.calibration.items()
    )
    answered = ", ".join(
        f"{abstention.accuracy:.0%} of {abstention.coverage:.0%} from {abstention.threshold:g}"
        for abstention in tradeoff.abstention
        if abstention.accuracy is not None and abstention.threshold in (0.0, 0.2, 0.4, 0.6, 0.8)
    )
    return f"Calibration of {errors}. Right among the prompts answered, by confidence: {answered}."


def explain_columns(evaluation: Evaluation) -> str:
    """The remaining numbers in a sentence."""
    return (
        f"The head closes {evaluation.gap_closed} % of the gap between one sample and the oracle. "
        f"Over all rollouts: AUC {evaluation.area_under_curve:.3f}, "
        f"expected calibration error {evaluation.expected_calibration_error:.3f}."
    )
