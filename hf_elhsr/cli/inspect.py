"""`hf-elhsr inspect`."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.markup import escape

from .._files import write_text
from ..explanation import explain
from ..head.loading import load_reward_head
from ..models import check_dtype
from ..rollouts import SamplingArguments, encode_prompts
from .options import (
    Dtype,
    Head,
    Json,
    MaxNewTokens,
    Model,
    N,
    NumbersFile,
    Prompt,
    Seed,
    SystemPrompt,
    Temperature,
    TemplateOption,
    TopP,
    prompt_format,
)
from .paths import check_file, expanded
from .prompt_text import read_prompt
from .result import show
from .sampler import load_sampler


def inspect(
    prompt: Prompt,
    model: Model,
    head: Head,
    n: N = 8,
    temperature: Temperature = 0.8,
    top_p: TopP = 0.9,
    max_new_tokens: MaxNewTokens = 256,
    system_prompt: SystemPrompt = None,
    template_option: TemplateOption = None,
    seed: Seed = 0,
    dtype: Dtype = "bfloat16",
    html_file: Annotated[
        Path | None,
        typer.Option("--html", help="Also write a self-contained page to this file.", callback=expanded),
    ] = None,
    numbers_file: NumbersFile = None,
    as_json: Json = False,
) -> None:
    """Show why a candidate wins.

    Shown are every token's reward and gate, the running reward, and the share of each layer.
    """
    # Mistakes are told before the model is loaded, which can take minutes
    arguments = SamplingArguments(n=n, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
    told = prompt_format(system_prompt, template_option)
    check_dtype(dtype)
    reward_head = load_reward_head(head)
    for file in (html_file, numbers_file):
        check_file(file)
    question = read_prompt(prompt)
    language_model, tokenizer = load_sampler(model, dtype)
    inputs = encode_prompts(tokenizer, [question], told).to(language_model.device)
    torch.manual_seed(seed)
    out = language_model.generate(
        **inputs,
        best_of_n=n,
        reward_head=reward_head,
        num_return_sequences=1,
        **arguments.generate_kwargs(),
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
