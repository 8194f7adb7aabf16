"""Tables for the terminal."""

import math
import re

from rich.table import Table
from rich.text import Text

from ..evaluation import Evaluation, TradeOff
from ..evaluation.tables import ResultTable, savings_table, strategy_table
from ..explanation.texts import visible


def candidates_table(texts: list[str], rewards: list[float], winner: int, marks: list[str] | None = None) -> Table:
    """Candidates, best first, with reward and P(correct); the winner in bold.

    Args:
        marks: Another cell for each candidate, e.g. whether it is correct.
    """
    table = Table(show_lines=True)
    table.add_column("Candidate", justify="right")
    table.add_column("Reward", justify="right")
    table.add_column("P(correct)", justify="right")
    if marks is not None:
        table.add_column("Correct?")
    table.add_column("Text")
    for index in sorted(range(len(texts)), key=lambda i: -rewards[i]):
        cells = [str(index + 1), f"{rewards[index]:+.2f}", f"{0.5 + 0.5 * math.tanh(rewards[index] / 2):.1%}"]
        if marks is not None:
            cells.append(marks[index])
        is_winner = index == winner
        # In one line: other characters that break lines are shown by name
        text = Text(visible(re.sub(r"[ \t\n]+", " ", texts[index]).strip(" ")))
        table.add_row(*cells, text.append(" <- winner" if is_winner else ""), style="bold green" if is_winner else None)
    return table


def evaluation_table(evaluation: Evaluation) -> Table:
    """Accuracy of every strategy, and the head's lead over it."""
    return _terminal_table(
        strategy_table(evaluation), f"{evaluation.prompts} prompts ({evaluation.split}), n = {evaluation.n}"
    )


def tradeoff_table(tradeoff: TradeOff) -> Table:
    """Savings and costs of every tolerance in a head's config, then those of the untrained pruner."""
    return _terminal_table(
        savings_table(tradeoff, untrained=True), f"{tradeoff.prompts} prompts ({tradeoff.split}), n = {tradeoff.n}"
    )


def _terminal_table(results: ResultTable, title: str) -> Table:
    table = Table(title=title)
    for index, column in enumerate(results.titles):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in results.rows:
        table.add_row(*row, style="bold" if row[0] == results.bold else None)
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
    return f"Calibration of {errors}. Correct among the prompts answered, by confidence: {answered}."


def explain_columns(evaluation: Evaluation) -> str:
    """The remaining numbers in a sentence."""
    return (
        f"The head closes {evaluation.gap_closed} % of the gap between one sample and the oracle. "
        f"Over all rollouts: AUC {evaluation.area_under_curve:.3f}, "
        f"expected calibration error {evaluation.expected_calibration_error:.3f}."
    )
