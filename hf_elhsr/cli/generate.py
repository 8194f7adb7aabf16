"""`hf-elhsr generate`."""

import sys
from typing import Annotated

import torch
import typer

from ..explanation import CandidateStreamer
from ..explanation.texts import print_text
from ..head.loading import load_reward_head
from ..models import load_language_model
from ..rollouts import encode_prompts
from .options import Dtype, Head, Json, MaxNewTokens, Model, N, Prompt, Seed, Temperature, TopP
from .result import console, messages, show
from .tables import candidates_table


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
    show_all: Annotated[bool, typer.Option("--all", help="Show all candidates instead of the winner alone.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Show all candidates and their rewards while they are generated.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Answer one prompt with the best of n candidates."""
    language_model, tokenizer = load_language_model(model, dtype)
    inputs = encode_prompts(tokenizer, [sys.stdin.read() if prompt == "-" else prompt]).to(language_model.device)
    reward_head = load_reward_head(head)
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
        # With --live the streamer has printed it
        print_text(console, texts[winner])
