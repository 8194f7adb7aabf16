"""`hf-elhsr inspect`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.markup import escape

from .._files import write_text
from ..explanation import explain
from ..head.loading import load_reward_head
from ..models import load_language_model
from ..rollouts import encode_prompts
from .options import Dtype, Head, Json, MaxNewTokens, Model, N, NumbersFile, Prompt, Seed, Temperature, TopP
from .result import show


def inspect(
    prompt: Prompt,
    model: Model,
    head: Head,
    n: N = 8,
    temperature: Temperature = 0.8,
    top_p: TopP = 0.9,
    max_new_tokens: MaxNewTokens = 256,
    seed: Seed = 0,
    dtype: Dtype = "bfloat16",
    html_file: Annotated[
        Path | None, typer.Option("--html", help="Also write a self-contained page to this file.")
    ] = None,
    numbers_file: NumbersFile = None,
    as_json: Json = False,
) -> None:
    """Show why a candidate wins.

    Shown are every token's reward and gate, the running reward, and the share of each layer.
    """
    language_model, tokenizer = load_language_model(model, dtype)
    inputs = encode_prompts(tokenizer, [sys.stdin.read() if prompt == "-" else prompt]).to(language_model.device)
    reward_head = load_reward_head(head)
    torch.manual_seed(seed)
    out = language_model.generate(
        **inputs,
        best_of_n=n,
        reward_head=reward_head,
        temperature=temperature,
        top_p=top_p,
        top_k=0,
        max_new_tokens=max_new_tokens,
        output_token_rewards=True,
        return_dict_in_generate=True,
    )
    explanation = explain(out, tokenizer, reward_head, language_model, inputs["attention_mask"])
    if numbers_file is not None:
        numbers_file.parent.mkdir(parents=True, exist_ok=True)
        write_text(numbers_file, explanation.to_json())
    where = []
    if html_file is not None:
        explanation.save(html_file)
        where.append(f"The page is in {escape(str(html_file))}.")
    show(as_json, json.loads(explanation.to_json()), explanation, *where)
