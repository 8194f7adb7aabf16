"""`hf-elhsr`: the commands together, and the one that answers a prompt."""

from typing import Annotated

import typer

from .. import __version__
from .evaluate import evaluate, tradeoff
from .generate import generate
from .inspect import inspect
from .publish import card, heads, publish
from .run import run
from .sample import relabel, sample
from .train import calibrate, convert, refit, train

# \b: lines as they are
_PATH = """
\b
From nothing to a published head:
  hf-elhsr sample rollouts/train --model MODEL
  hf-elhsr train rollouts/train my-head
  hf-elhsr evaluate rollouts/test --model MODEL --head my-head \\
      --numbers my-head/evaluation/test.json
  hf-elhsr generate "How many ...?" --model MODEL --head my-head
  hf-elhsr card my-head
  hf-elhsr publish my-head NAME/my-head
"""

app = typer.Typer(
    help="Reward heads that read a language model's hidden states, and choose the best of its answers.",
    epilog=_PATH,
    # Boxes cut long words off where a terminal is 80 wide
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"hf-elhsr {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Where no command is named, show the help."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


# In the order that `hf-elhsr --help` lists them
_MAKING = (sample, relabel, train, refit, calibrate)
for command in (*_MAKING, evaluate, tradeoff, generate, inspect, card, publish, heads, convert):
    app.command()(command)


def main() -> None:
    """The program `hf-elhsr`; see [`run`] for how it ends."""
    run(app)
