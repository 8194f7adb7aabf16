"""`hf-elhsr`: the commands together, and the one that answers a prompt."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape

from ..explanation import CandidateStreamer
from ..explanation.printed_text import print_text
from ..generation.resolve import resolve_reward_head
from ..rollouts import encode_prompts
from .inspect_head import inspect
from .load_model import load_model
from .make_head import calibrate, convert, refit, sample, train
from .measure_head import card, evaluate, tradeoff
from .options import Dtype, Head, MaxNewTokens, Model, N, Seed, Temperature, TopP
from .share_head import heads, publish
from .tables import candidates_table

app = typer.Typer(
    help="Reward heads that read a language model's hidden states: sample, train, evaluate, generate, inspect.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
console = Console()


def generate(
    prompt: Annotated[str, typer.Argument(help="What to ask; '-' reads standard input.")],
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
) -> None:
    """Answer one prompt with the best of n candidates."""
    language_model, tokenizer = load_model(model, dtype)
    inputs = encode_prompts(tokenizer, [sys.stdin.read() if prompt == "-" else prompt]).to(language_model.device)
    reward_head = resolve_reward_head(head)
    torch.manual_seed(seed)
    with CandidateStreamer(tokenizer, reward_head, console) as streamer:
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
    winner = int(out.winners[0, 0])
    if show_all:
        console.print(candidates_table(texts, out.rewards[0].tolist(), winner))
    elif not live:
        # The streamer has ended with it otherwise
        print_text(console, texts[winner])


# In the order that `hf-elhsr --help` lists them
for command in (sample, train, refit, calibrate, evaluate, tradeoff, generate, inspect, card, publish, heads, convert):
    app.command()(command)


def main() -> None:
    """Run a command; what the user can mend is one line, not a traceback."""
    run: Callable[..., Any] = app
    try:
        run()
    except (ValueError, OSError) as error:
        # OSError: transformers' word for a model or tokenizer that is not there
        Console(stderr=True).print(f"[red]Error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
