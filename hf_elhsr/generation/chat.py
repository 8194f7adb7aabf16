"""best_of_n_chat: best-of-n from a model behind an OpenAI-compatible interface, by the log-probabilities it shows."""

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

    Every token that the server shows is scored. Servers leave out the token that ends an answer, and some (llama.cpp's)
    show fewer log-probabilities where several tokens have the same text; those missing count as the lowest shown. So R
    differs a little from that of the same answer sampled here: compare answers of one server with each other.

    Args:
        head: One that reads "top_log_probabilities".
        logprobs: The part `choices[i].logprobs` of the answer, as JSON has it: {"content": [{"logprob": ...,
            "top_logprobs": [{"logprob": ...}, ...]}, ...]}. Ask for `logprobs=true` and as many `top_logprobs` as the
            head's `config.num_log_probabilities`.

    Returns:
        R; sigmoid(R) estimates P(correct).

    Raises:
        ValueError: The head reads another signal, or the answer has no tokens, too few log-probabilities, or some that
            are no log-probabilities.
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
    """`huggingface_hub.InferenceClient`, or whatever has its `chat_completion`."""

    def chat_completion(self, messages: Any, **kwargs: Any) -> Any:
        """An answer with `choices`, as the OpenAI-compatible interface has them."""


@dataclass(frozen=True)
class ChatBestOfN:
    """The candidates of one conversation.

    Args:
        text: The winner's.
        winner: Its place among the candidates.
        texts: Of every candidate, as they came.
        rewards: R of every candidate; sigmoid(R) estimates P(correct). -inf for an answer without text: it
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
    """Ask for n answers with their log-probabilities, score them, and choose the one with the highest reward.

    All answers are asked for at once. A server that gives fewer (many ignore `n`) is asked again until all are there.

    Args:
        client: E.g. `huggingface_hub.InferenceClient(base_url="http://localhost:8000/v1")`.
        messages: The conversation, ending with the user's turn.
        best_of_n: How many answers to sample, at least 1.
        reward_head: One that reads "top_log_probabilities", or where to load it from. Only use it with the model that
            it was made for: what comes through an interface shows no weights that could be compared.
        **kwargs: What else `chat_completion` takes: `model`, `temperature`, `top_p`, `max_tokens`, ... With `seed`,
            the requests count on from it, so that they do not give the same answer again.

    Raises:
        ValueError: An argument that this function decides on itself, a head that reads another signal, a server that
            shows no or too few log-probabilities, that gives no answer to a request, or nothing but empty answers.
    """
    whole_number("best_of_n", best_of_n)
    decided = sorted({"n", "logprobs", "top_logprobs", "stream"} & kwargs.keys())
    if decided:
        raise ValueError(f"{', '.join(decided)}: best_of_n_chat decides on this itself; leave it out.")
    head = load_reward_head(reward_head)
    head.config.reads.check_shown_by_interfaces()
    choices: list[Any] = []
    while len(choices) < best_of_n:
        own = dict(kwargs)
        if own.get("seed") is not None:
            # By answers: a server may count on from it within a request
            own["seed"] += len(choices)
        answer = client.chat_completion(
            messages, n=best_of_n - len(choices), logprobs=True, top_logprobs=head.config.num_log_probabilities, **own
        )
        if not answer.choices:
            raise ValueError("The server answered without any choices: look at its log.")
        if not choices and len(answer.choices) < best_of_n:
            logger.info(f"The server gave {len(answer.choices)} of {best_of_n} answers, so it is asked again.")
        choices += answer.choices
    choices = choices[:best_of_n]
    texts = [choice.message.content or "" for choice in choices]
    rewards = [_reward(head, text, choice.logprobs) for text, choice in zip(texts, choices, strict=True)]
    winner = max(range(best_of_n), key=rewards.__getitem__)
    if rewards[winner] == float("-inf"):
        raise ValueError(f"All {best_of_n} answers are empty, so there is nothing to choose: change the prompt.")
    return ChatBestOfN(texts[winner], winner, texts, rewards)


def _reward(head: ElhsrRewardHead, text: str, logprobs: Mapping[str, Any] | None) -> float:
    if not text.strip():
        # The model ended at once; some servers show the token that ends, others leave it out
        return float("-inf")
    return score_logprobs(head, logprobs or {})
