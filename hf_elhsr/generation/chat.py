"""best_of_n_chat: best-of-n with a model behind an OpenAI-compatible API, from the log-probabilities it returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers.utils import logging

from .._checks import whole_number
from ..head.loading import load_reward_head
from ..head.modeling_elhsr import ElhsrRewardHead


def score_logprobs(head: ElhsrRewardHead, logprobs: Mapping[str, Any]) -> float:
    """The reward R of a chat-completions answer; the language model is not needed.

    Every token that the server returns is scored. Servers leave out the token that ends an answer, and some
    (llama.cpp's) return fewer log-probabilities if several tokens have the same text; missing ones count as the lowest
    returned. So R differs a little from that of the same answer sampled locally: compare answers of the same server
    only.

    Args:
        head: A head that reads "top_log_probabilities".
        logprobs: The part `choices[i].logprobs` of the answer, in its JSON form: {"content": [{"logprob": ...,
            "top_logprobs": [{"logprob": ...}, ...]}, ...]}. Ask for `logprobs=true` and as many `top_logprobs` as the
            head's `config.num_log_probabilities`.

    Returns:
        R; sigmoid(R) estimates P(correct).

    Raises:
        ValueError: The head reads a different signal, or the answer has no tokens, too few log-probabilities, or
            values that are not log-probabilities.
    """
    reads: Any = head.config.reads
    reads.check_shown_by_interfaces()
    features = reads.features_from_logprobs(logprobs)
    mask = torch.ones(1, len(features), dtype=torch.bool)
    with torch.no_grad():
        rewards = head(features[None].to(head.device), mask).rewards
    return float(rewards[0])


logger = logging.get_logger(__name__)


class ChatClient(Protocol):
    """`huggingface_hub.InferenceClient`, or any client with its method `chat_completion`."""

    def chat_completion(self, messages: Any, **kwargs: Any) -> Any:
        """Return an answer with `choices`, as the OpenAI-compatible API defines them."""


@dataclass(frozen=True)
class ChatBestOfN:
    """The candidates of one conversation.

    Args:
        text: The winner's text.
        winner: Its index among the candidates.
        texts: The text of every candidate, in the order of the answers.
        rewards: R of every candidate; sigmoid(R) estimates P(correct). It is -inf for an answer without text, which
            cannot win.
    """

    text: str
    winner: int
    texts: list[str]
    rewards: list[float]


def best_of_n_chat(
    client: ChatClient,
    messages: list[dict[str, Any]],
    best_of_n: int,
    reward_head: ElhsrRewardHead | str,
    **kwargs: Any,
) -> ChatBestOfN:
    """Request n answers with their log-probabilities, score them, and select the one with the highest reward.

    All answers are requested at once. If a server returns fewer (many ignore `n`), the rest are requested again.

    Args:
        client: E.g. `huggingface_hub.InferenceClient(base_url="http://localhost:8000/v1")`.
        messages: The conversation, ending with the user's turn.
        best_of_n: How many answers to sample, at least 1.
        reward_head: A head that reads "top_log_probabilities", or where to load it from. Use it only with the model
            that it was made for: an API does not show weights, so this cannot be checked.
        **kwargs: Other arguments of `chat_completion`: `model`, `temperature`, `top_p`, `max_tokens`, ... A `seed` is
            raised with every request, so that requests do not return the same answer again.

    Raises:
        ValueError: An argument that this function sets itself, a head that reads a different signal, or a server that
            returns no or too few log-probabilities, no answer to a request, or only empty answers.
    """
    whole_number("best_of_n", best_of_n)
    decided = sorted({"n", "logprobs", "top_logprobs", "stream"} & kwargs.keys())
    if decided:
        raise ValueError(f"{', '.join(decided)}: best_of_n_chat sets this itself; leave it out.")
    head = load_reward_head(reward_head)
    head.config.reads.check_shown_by_interfaces()
    choices: list[Any] = []
    while len(choices) < best_of_n:
        own = dict(kwargs)
        if own.get("seed") is not None:
            # By the number of answers: a server may count up from the seed within a request
            own["seed"] += len(choices)
        answer = client.chat_completion(
            messages, n=best_of_n - len(choices), logprobs=True, top_logprobs=head.config.num_log_probabilities, **own
        )
        if not answer.choices:
            raise ValueError("The server answered without any choices: look at its log.")
        if not choices and len(answer.choices) < best_of_n:
            logger.info(f"The server returned {len(answer.choices)} of {best_of_n} answers; requesting the rest.")
        choices += answer.choices
    choices = choices[:best_of_n]
    texts = [choice.message.content or "" for choice in choices]
    rewards = [_reward(head, text, choice.logprobs) for text, choice in zip(texts, choices, strict=True)]
    winner = max(range(best_of_n), key=rewards.__getitem__)
    if rewards[winner] == float("-inf"):
        raise ValueError(f"All {best_of_n} answers are empty, so none can win: change the prompt.")
    return ChatBestOfN(texts[winner], winner, texts, rewards)


def _reward(head: ElhsrRewardHead, text: str, logprobs: Mapping[str, Any] | None) -> float:
    if not text.strip():
        # The model ended at once; some servers return the token that ends the answer, others leave it out
        return float("-inf")
    return score_logprobs(head, logprobs or {})
