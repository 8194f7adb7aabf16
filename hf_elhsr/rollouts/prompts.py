"""Prompts: questions in the form that the language model reads, as token ids or text."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError
from transformers import BatchEncoding, PreTrainedTokenizerBase

from .._checks import quoted, shortened
from ..tasks import Problem


@dataclass(frozen=True)
class PromptFormat:
    """What a chat template is told besides the question.

    Args:
        system_prompt: A system message before the question. Default: none, which some templates replace by their own.
        template_options: Variables of the chat template by name, e.g. {"enable_thinking": False}; JSON values. Default:
            the template's own.
    """

    system_prompt: str | None = None
    template_options: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """What a set of rollouts records of it; nothing if it is the default."""
        described = {"system_prompt": self.system_prompt, "template_options": dict(self.template_options)}
        return {name: value for name, value in described.items() if value not in (None, {})}


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, questions: list[str], prompt_format: PromptFormat | None = None
) -> BatchEncoding:
    """Encode questions as left-padded token ids, in the tokenizer's chat template if it has one.

    Args:
        tokenizer: The language model's.
        questions: At least one.
        prompt_format: What the chat template is told besides. Default: nothing.

    Returns:
        `input_ids` and `attention_mask`, each (batch, length) long.

    Raises:
        ValueError: The tokenizer has no padding token, a question has no tokens, or the chat template refuses it or has
            no use for a part of the format.
    """
    texts = _prompt_texts(tokenizer, questions, prompt_format)
    # A chat template already contains the special tokens
    special = tokenizer.chat_template is None
    encoded = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=special)
    empty = [number for number, row in enumerate(encoded["attention_mask"]) if not row.any()]
    if empty:
        raise ValueError(
            f"Question {empty[0] + 1} of {len(questions)} has no tokens ({quoted(questions[empty[0]])}), and neither a "
            "chat template nor the tokenizer adds any, so there is nothing to go on from: ask something."
        )
    return encoded


def prompt_token_ids(
    tokenizer: PreTrainedTokenizerBase, question: str, prompt_format: PromptFormat | None = None
) -> list[int]:
    """The tokens of [`encode_prompts`] for one question, without padding; none for an empty prompt."""
    [text] = _prompt_texts(tokenizer, [question], prompt_format)
    ids: list[int] = tokenizer(text, add_special_tokens=tokenizer.chat_template is None)["input_ids"]
    return ids


def given_prompts_sha256(
    tokenizer: PreTrainedTokenizerBase, questions: list[str], prompt_format: PromptFormat | None = None
) -> str:
    """A hash of all that a user determines of the prompts, and of nothing that a clock adds.

    The questions as token ids, which depend on the tokenizer, the chat template's text and what it is told; but not
    the text that comes out, since templates can print the date.
    """
    told = PromptFormat() if prompt_format is None else prompt_format
    given = {
        "questions": tokenizer(questions, add_special_tokens=False)["input_ids"],
        "chat_template": None if tokenizer.chat_template is None else tokenizer.get_chat_template(),
        **told.describe(),
    }
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


def prompt_texts(
    tokenizer: PreTrainedTokenizerBase, problems: Iterable[Problem], prompt_format: PromptFormat | None = None
) -> dict[str, str]:
    """The prompts as the language model reads them, special tokens included, by the problem's id.

    Text reward models read them before the completion.
    """
    ids = {problem.id: prompt_token_ids(tokenizer, problem.question, prompt_format) for problem in problems}
    return {problem: tokenizer.decode(own) for problem, own in ids.items()}


def _prompt_texts(
    tokenizer: PreTrainedTokenizerBase, questions: list[str], prompt_format: PromptFormat | None
) -> list[str]:
    told = PromptFormat() if prompt_format is None else prompt_format
    if tokenizer.pad_token is None:
        raise ValueError("The tokenizer has no padding token: set tokenizer.pad_token, e.g. to tokenizer.eos_token.")
    if tokenizer.chat_template is None:
        if told.describe():
            raise ValueError(
                f"{' and '.join(told.describe())} are for a chat template, and the tokenizer has none: leave them out, "
                "or put all that the model should read into the questions."
            )
        return questions
    template = tokenizer.get_chat_template()
    if unused := [name for name in told.template_options if not re.search(rf"\b{re.escape(name)}\b", template)]:
        raise ValueError(
            f"The tokenizer's chat template has no variable {quoted(unused[0])}, so it would change nothing: leave it "
            "out, or look its name up in the template."
        )
    system = [] if told.system_prompt is None else [{"role": "system", "content": told.system_prompt}]
    chats = [[*system, {"role": "user", "content": question}] for question in questions]
    try:
        texts: Any = tokenizer.apply_chat_template(
            chats, tokenize=False, add_generation_prompt=True, **told.template_options
        )
    except TemplateError as error:
        raise ValueError(f"The tokenizer's chat template refuses the conversation: {shortened(str(error))}.") from error
    if told.system_prompt is not None and any(told.system_prompt.strip() not in text for text in texts):
        raise ValueError("The tokenizer's chat template leaves the system prompt out: put it into the questions.")
    return texts
