"""Prompts: questions in the form that the language model reads, as token ids or text."""

from collections.abc import Iterable
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase

from ..tasks import Problem


def encode_prompts(tokenizer: PreTrainedTokenizerBase, questions: list[str]) -> BatchEncoding:
    """Encode questions as left-padded token ids, in the tokenizer's chat template if it has one.

    Returns:
        `input_ids` and `attention_mask`, each (batch, length) long.

    Raises:
        ValueError: The tokenizer has no padding token.
    """
    has_template = tokenizer.chat_template is not None
    texts: list[Any] = questions
    if has_template:
        chats = [[{"role": "user", "content": question}] for question in questions]
        texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    if tokenizer.pad_token is None:
        raise ValueError("The tokenizer has no padding token: set tokenizer.pad_token, e.g. to tokenizer.eos_token.")
    # A chat template already contains the special tokens
    return tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=not has_template)


def prompt_texts(tokenizer: PreTrainedTokenizerBase, problems: Iterable[Problem]) -> dict[str, str]:
    """The prompts as the language model reads them, special tokens included, by the problem's id.

    Text reward models read them before the completion.
    """
    ids = {problem.id: encode_prompts(tokenizer, [problem.question])["input_ids"][0] for problem in problems}
    return {problem: tokenizer.decode(own) for problem, own in ids.items()}
