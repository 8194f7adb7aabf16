"""The tables of an evaluation and of a trade-off: every column in one place, for Markdown and for terminals."""

from collections.abc import Callable
from dataclasses import dataclass

from .best_of_n import Evaluation
from .tradeoff import ADAPTIVE, PRUNED, UNTRAINED, Abstention, Point, TradeOff


@dataclass(frozen=True)
class ResultTable:
    """Cells as text, in rows, under the titles of their columns. The first column names the rows.

    Args:
        titles: The titles of the columns.
        rows: The rows, each with one cell for every column.
        bold: The first cell of the row in bold; None for none.
    """

    titles: list[str]
    rows: list[list[str]]
    bold: str | None = None

    def markdown(self) -> str:
        """The table in Markdown, with the numbers aligned to the right."""
        lines = [f"| {' | '.join(self.titles)} |", "|---|" + "---:|" * (len(self.titles) - 1)]
        for row in self.rows:
            mark = "**" if row[0] == self.bold else ""
            lines.append(f"| {' | '.join(f'{mark}{cell}{mark}' if cell else '' for cell in row)} |")
        return "\n".join(lines)


#: Title of each column, and its cell for a strategy in an evaluation. To add a column, add a line.
STRATEGY_COLUMNS: dict[str, Callable[[Evaluation, str], str]] = {
    "answer by": lambda evaluation, name: name,
    "correct, % [95 % interval]": lambda evaluation, name: str(evaluation.accuracy[name]),
    "head is ahead by, points [95 % interval]": lambda evaluation, name: str(evaluation.head_minus.get(name, "")),
}

#: Title of each column, and its cell for a setting that was measured.
POINT_COLUMNS: dict[str, Callable[[Point], str]] = {
    "tokens, % of exact": lambda point: f"{100 * point.tokens:.1f}",
    "correct, % [95 % interval]": lambda point: str(point.accuracy),
    "difference, points [95 % interval]": lambda point: str(point.difference),
}

#: Title of each column, and its cell for an abstention. Only the card has this table; a terminal shows a sentence.
ABSTENTION_COLUMNS: dict[str, Callable[[Abstention], str]] = {
    "`min_confidence`": lambda entry: f"{entry.threshold:g}",
    "answered, %": lambda entry: f"{100 * entry.coverage:.1f}",
    "of these correct, %": lambda entry: "" if entry.accuracy is None else f"{100 * entry.accuracy:.1f}",
}

# The arguments of `generate` that a user passes
_ARGUMENTS = {PRUNED: "prune", ADAPTIVE: "adaptive"}


def strategy_table(evaluation: Evaluation) -> ResultTable:
    """Accuracy of every strategy, and how far the head is ahead of it."""
    rows = [[cell(evaluation, name) for cell in STRATEGY_COLUMNS.values()] for name in evaluation.accuracy]
    return ResultTable(list(STRATEGY_COLUMNS), rows, bold="reward head")


def savings_table(tradeoff: TradeOff, untrained: bool = False) -> ResultTable:
    """What every tolerance in the head's config saves and costs.

    Args:
        untrained: Also show the untrained pruner, at settings that sample about as many tokens as the head's.
    """
    rows = [[f"exact best-of-{tradeoff.n}", "100.0", str(tradeoff.exact), ""]]
    named = [
        (f"{argument}={point.setting:g}", point)
        for name, argument in _ARGUMENTS.items()
        for point in tradeoff.by_tolerance[name]
    ]
    if untrained and (swept := tradeoff.curves.get(UNTRAINED)):
        for point in tradeoff.by_tolerance[PRUNED]:
            nearest = min(swept, key=lambda other: abs(other.tokens - point.tokens))
            named.append((f"{UNTRAINED}, price {nearest.setting:g}", nearest))
    rows += [[name, *(cell(point) for cell in POINT_COLUMNS.values())] for name, point in named]
    return ResultTable(["setting", *POINT_COLUMNS], rows)


def abstention_table(tradeoff: TradeOff) -> ResultTable:
    """How many prompts are answered at some minimal confidences, and how many of these correctly."""
    shown = [
        entry for entry in tradeoff.abstention if entry.accuracy is not None and round(100 * entry.threshold) % 20 == 0
    ]
    rows = [[cell(entry) for cell in ABSTENTION_COLUMNS.values()] for entry in shown]
    return ResultTable(list(ABSTENTION_COLUMNS), rows)
