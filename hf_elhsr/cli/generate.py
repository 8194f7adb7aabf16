"""`hf-elhsr generate`."""

from typing import Annotated

import torch
import typer

from ..explanation import CandidateStreamer
from ..explanation.texts import print_text
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
    Prompt,
    Seed,
    SystemPrompt,
    Temperature,
    TemplateOption,
    TopP,
    prompt_format,
)
from .prompt_text import read_prompt
from .result import console, messages, show
from .sampler import load_sampler
from .terminal_tables import candidates_table


def generate(
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
    show_all: Annotated[bool, typer.Option("--all", help="Show all candidates instead of the winner alone.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Show all candidates and their rewards while they are generated.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Answer one prompt with the best of n candidates."""
    # Mistakes are told before the model is loaded, which can take minutes
    arguments = SamplingArguments(n=n, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
    told = prompt_format(system_prompt, template_option)
    check_dtype(dtype)
    reward_head = load_reward_head(head)
    question = read_prompt(prompt)
    language_model, tokenizer = load_sampler(model, dtype)
    inputs = encode_prompts(tokenizer, [question], told).to(language_model.device)
    torch.manual_seed(seed)
    with CandidateStreamer(tokenizer, reward_head, messages if as_json else console) as streamer:
        out = language_model.generate(
            **inputs,
            best_of_n=n,
            reward_head=reward_head,
            num_return_sequences=1,
            **arguments.generate_kwargs(),
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
        # With --live the streamer has printed it
        print_text(console, texts[winner])
