"""`hf-elhsr`: the commands together, and the one that answers a prompt."""

import sys
from typing import Annotated

import torch
import typer

from .. import __version__
from ..explanation import CandidateStreamer
from ..explanation.printed_text import print_text
from ..generation.resolve import resolve_reward_head
from ..rollouts import encode_prompts
from .inspect_head import inspect
from .load_model import load_model
from .make_head import calibrate, convert, refit, train
from .make_rollouts import relabel, sample
from .measure_head import card, evaluate, tradeoff
from .options import Dtype, Head, Json, MaxNewTokens, Model, N, Prompt, Seed, Temperature, TopP
from .result import console, messages, show
from .run import run
from .share_head import heads, publish
from .tables import candidates_table

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


def generate(
    prompt: Prompt,
    model: Model,
    head: Head,
    n: N = 8,
    temperature: Temperature = 0.8,
    top_p: TopP = 0.9,
    max_new_tokens: MaxNewTokens = 256,
    seed: Seed = 0,
    dtype: Dtype = "bfloat16",
    show_all: Annotated[bool, typer.Option("--all", help="Show all candidates, not only the winner.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Show all candidates and their rewards while they are written.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Answer one prompt with the best of n candidates."""
    language_model, tokenizer = load_model(model, dtype)
    inputs = encode_prompts(tokenizer, [sys.stdin.read() if prompt == "-" else prompt]).to(language_model.device)
    reward_head = resolve_reward_head(head)
    torch.manual_seed(seed)
    with CandidateStreamer(tokenizer, reward_head, messages if as_json else console) as streamer:
        out = language_model.generate(
            **inputs,
            best_of_n=n,
            reward_head=reward_head,
            temperature=temperature,
            top_p=top_p,
            top_k=0,
            max_new_tokens=max_new_tokens,
            return_dict_in_generate=True,
            streamer=streamer if live else None,
        )
    texts = tokenizer.batch_decode(out.candidates[0][:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    winner, rewards = int(out.winners[0, 0]), out.rewards[0].tolist()
    if as_json:
        candidates = [{"text": text, "reward": reward} for text, reward in zip(texts, rewards, strict=True)]
        show(as_json, {"winner": winner, "text": texts[winner], "candidates": candidates})
    elif show_all:
        show(as_json, {}, candidates_table(texts, rewards, winner))
    elif not live:
        # The streamer has ended with it otherwise
        print_text(console, texts[winner])


# In the order that `hf-elhsr --help` lists them
_MAKING = (sample, relabel, train, refit, calibrate)
for command in (*_MAKING, evaluate, tradeoff, generate, inspect, card, publish, heads, convert):
    app.command()(command)


def main() -> None:
    """The program `hf-elhsr`; see [`run`] for how it ends."""
    run(app)
