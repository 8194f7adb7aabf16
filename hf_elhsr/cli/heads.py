"""`hf-elhsr heads`."""

import dataclasses
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..explanation.texts import visible
from ..hub import FoundHead, find_heads
from ..models import base_model_id
from .options import Json
from .result import show


def heads(
    model: Annotated[str, typer.Argument(help='The language model\'s id on the Hub, "org/name".')],
    task: Annotated[
        str | None, typer.Option("--reported-task", help="Only heads that report a result on this task.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the Hub's heads for a language model, best first."""
    model_id = base_model_id(model)
    found = find_heads(model_id, task=task)
    # JSON has no dates, so they are text, in the Hub's form
    dates = [head.last_modified.isoformat() if head.last_modified else None for head in found]
    data = [dataclasses.asdict(head) | {"last_modified": date} for head, date in zip(found, dates, strict=True)]
    show(
        as_json,
        {"model": model_id, "heads": data},
        _table(found)
        if found
        else f"The Hub has no heads for {escape(model_id)} that match. Train one with `hf-elhsr sample` and `train`.",
    )


def _table(found: list[FoundHead]) -> Table:
    table = Table("head", "task", "best of n, % [95 % interval]", "as its card reports", "reads")
    for head in found:
        accuracy = "" if head.accuracy is None else f"{100 * head.accuracy:.1f}"
        if head.interval is not None:
            accuracy += " [{:.1f}, {:.1f}]".format(*(100 * end for end in head.interval))
        measured = "" if head.metric is None else f"{head.metric}, split {head.split}"
        # Strangers wrote these texts, which must not control the terminal
        cells = (head.repo_id, head.task or "", accuracy, measured, head.signal or "")
        table.add_row(*(Text(visible(text)) for text in cells))
    return table
