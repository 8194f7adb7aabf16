"""show: a command's result, for people or as JSON, on standard output, where nothing else is written."""

import json
import math
from typing import Any

import typer
from rich.console import Console, RenderableType

console = Console()
#: Whatever is no result, so that results can be piped.
messages = Console(stderr=True)


def show(as_json: bool, data: dict[str, Any], *for_people: RenderableType) -> None:
    """Print what a command has found.

    Args:
        as_json: Print `data` as one JSON object in ASCII, and nothing for people.
        data: What JSON can hold; numbers that are not finite, which it cannot, become null.
        for_people: Sentences, in rich's markup, and tables.
    """
    if as_json:
        typer.echo(json.dumps(_finite(data), indent=2, allow_nan=False))
        return
    for part in for_people:
        # Only a terminal breaks the lines of a sentence, so that a path in it stays whole in a pipe
        console.print(part, soft_wrap=isinstance(part, str), highlight=not isinstance(part, str))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
