"""The commands that share a head: publish, heads."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..explanation.texts import visible
from ..hub import FoundHead, find_heads, write_card, write_custom_generate
from ..hub import publish as publish_folder
from ..models import base_model_id
from .options import Json
from .result import show


def card(
    folder: Annotated[Path, typer.Argument(help="The head's folder, with training.json and evaluation/*.json.")],
    license: Annotated[
        str | None,
        typer.Option(
            help="Of the weights, as apache-2.0 or mit.", show_default="as the card that is there says, or none"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a head's model card, and its code for plain transformers.

    The card is README.md, made from the head's records. The code is custom_generate/, for use without this package.
    """
    card_file = write_card(folder, license=license)
    written = {"card": str(card_file), "custom_generate": str(write_custom_generate(folder))}
    show(as_json, written, f"Wrote {escape(written['card'])} and {escape(written['custom_generate'])}.")


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
    """Publish a head on the Hub, in one commit, with card and code.

    The commit has the weights, the card, the records of training and evaluation, and the code for plain transformers.
    """
    commit = publish_folder(folder, repo_id, private=private, revision=branch, commit_message=message)
    name = commit.repo_url.repo_id
    show(
        as_json,
        {"repo_id": name, "revision": commit.oid, "url": str(commit.commit_url)},
        f'Published: reward_head="{escape(name)}@{commit.oid}" loads this very head.',
    )


def heads(
    model: Annotated[str, typer.Argument(help='The language model\'s id on the Hub, as "org/name".')],
    task: Annotated[
        str | None, typer.Option("--reported-task", help="Only heads that report a result on this task.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the Hub's heads for a language model, the best first."""
    model_id = base_model_id(model)
    found = find_heads(model_id, task=task)
    # Dates, which JSON does not have, as the Hub writes them
    dates = [head.last_modified.isoformat() if head.last_modified else None for head in found]
    data = [dataclasses.asdict(head) | {"last_modified": date} for head, date in zip(found, dates, strict=True)]
    show(
        as_json,
        {"model": model_id, "heads": data},
        _table(found)
        if found
        else f"The Hub has no such heads for {escape(model_id)}. `hf-elhsr sample` and `train` make one.",
    )


def _table(found: list[FoundHead]) -> Table:
    table = Table("head", "task", "best of n, % [95 % interval]", "as its card reports", "reads")
    for head in found:
        accuracy = "" if head.accuracy is None else f"{100 * head.accuracy:.1f}"
        if head.interval is not None:
            accuracy += " [{:.1f}, {:.1f}]".format(*(100 * end for end in head.interval))
        measured = "" if head.metric is None else f"{head.metric}, split {head.split}"
        # What others wrote, made harmless
        cells = (head.repo_id, head.task or "", accuracy, measured, head.signal or "")
        table.add_row(*(Text(visible(text)) for text in cells))
    return table
