"""`hf-elhsr publish`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..hub import publish as publish_folder
from .options import Json
from .paths import expanded
from .result import show


def publish(
    folder: Annotated[
        Path, typer.Argument(help="The head's folder, with a card by `hf-elhsr card`.", callback=expanded)
    ],
    repo_id: Annotated[str, typer.Argument(help='The repository\'s id, "org/name"; created if it does not exist.')],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Visibility of a new repository. Default: its owner's setting."),
    ] = None,
    branch: Annotated[str | None, typer.Option(help="Commit to this branch instead of main.")] = None,
    message: Annotated[str, typer.Option(help="The commit message.")] = "Upload reward head",
    as_json: Json = False,
) -> None:
    """Publish a head on the Hub in one commit, with card and code.

    The commit has the weights, the card, the records of training and evaluation, and the code for plain transformers.
    """
    commit = publish_folder(folder, repo_id, private=private, revision=branch, commit_message=message)
    name = commit.repo_url.repo_id
    show(
        as_json,
        {"repo_id": name, "revision": commit.oid, "url": str(commit.commit_url)},
        f'Published: reward_head="{escape(name)}@{commit.oid}" loads exactly this head.',
    )
