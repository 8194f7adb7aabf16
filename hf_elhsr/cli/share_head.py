"""The commands that share a head: publish, heads."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..explanation.visible import visible
from ..hub import find_heads
from ..hub import publish as publish_folder
from .load_model import base_model_id

console = Console()

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


def publish(
    folder: Annotated[Path, typer.Argument(help="The head's folder, with a card by `hf-elhsr card`.")],
    repo_id: Annotated[str, typer.Argument(help='Of the repository, as "org/name"; made if it is not there.')],
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Of a repository that is made. Default: as its owner's.")
    ] = None,
    branch: Annotated[str | None, typer.Option(help="Commit to this branch instead of main.")] = None,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Upload reward head",
    as_json: Json = False,
) -> None:
    """Publish a head on the Hub, in one commit: weights, card, records, and the code for plain transformers."""
    commit = publish_folder(folder, repo_id, private=private, revision=branch, commit_message=message)
    name = commit.repo_url.repo_id
    if as_json:
        typer.echo(json.dumps({"repo_id": name, "revision": commit.oid, "url": str(commit.commit_url)}))
        return
    console.print(f'Published: reward_head="{escape(name)}@{commit.oid}" loads this very head.', soft_wrap=True)


def heads(
    model: Annotated[str, typer.Argument(help='The language model\'s id on the Hub, as "org/name".')],
    task: Annotated[str | None, typer.Option(help="Only heads that report a result on this task.")] = None,
    as_json: Json = False,
) -> None:
    """List the heads on the Hub that were made for a language model, best reported accuracy first."""
    model_id = base_model_id(model)
    found = find_heads(model_id, task=task)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(head) for head in found], default=str))
        return
    if not found:
        console.print(f"The Hub has no such heads for {escape(model_id)}. `hf-elhsr sample` and `train` make one.")
        return
    table = Table("head", "task", "best of n, % [95 % interval]", "as its card reports", "reads")
    for head in found:
        accuracy = "" if head.accuracy is None else f"{100 * head.accuracy:.1f}"
        if head.interval is not None:
            accuracy += " [{:.1f}, {:.1f}]".format(*(100 * end for end in head.interval))
        measured = "" if head.metric is None else f"{head.metric}, split {head.split}"
        # What others wrote, made harmless
        cells = (head.repo_id, head.task or "", accuracy, measured, head.signal or "")
        table.add_row(*(Text(visible(text)) for text in cells))
    console.print(table)
