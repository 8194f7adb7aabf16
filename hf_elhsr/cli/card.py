"""`hf-elhsr card`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..hub import write_card, write_custom_generate
from .options import Json
from .paths import expanded
from .result import show


def card(
    folder: Annotated[
        Path, typer.Argument(help="The head's folder, with training.json and evaluation/*.json.", callback=expanded)
    ],
    license: Annotated[
        str | None,
        typer.Option(
            help="License of the weights, such as apache-2.0 or mit.", show_default="the present card's, or none"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a head's model card, and its code for plain transformers.

    The card is README.md, written from the head's records. The code is custom_generate/, for use without this package.
    """
    card_file = write_card(folder, license=license)
    written = {"card": str(card_file), "custom_generate": str(write_custom_generate(folder))}
    show(as_json, written, f"Wrote {escape(written['card'])} and {escape(written['custom_generate'])}.")
