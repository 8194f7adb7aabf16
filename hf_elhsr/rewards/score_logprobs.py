"""score_logprobs: the reward of an answer that came through a programming interface, from its log-probabilities."""

from collections.abc import Mapping
from typing import Any

import torch

from ..modeling_elhsr import ElhsrRewardHead
from ..modeling_signals import LOG_PROBABILITY_FLOOR

# A certain token's log-probability may come out of float32 arithmetic a little above zero
_ROUNDED_ZERO = 1e-3
# Up to one in so many may be merged at every token of an answer; a server that shows fewer gives too few
_MERGED = 4


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
    k = head.config.num_log_probabilities
    if head.config.signal != "top_log_probabilities" or k is None:
        raise ValueError(
            f"This head reads {head.config.signal!r}, and an answer shows log-probabilities alone: train a head with "
            "signal='top_log_probabilities'."
        )
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    if not content:
        raise ValueError(
            f"Expected logprobs with a token in 'content', got {logprobs!r}: ask the server for logprobs=true and "
            f"top_logprobs={k}."
        )
    shown = max(len(token.get("top_logprobs") or []) for token in content)
    # An answer of a token or two may have nothing but merged ones
    if shown < k - k // _MERGED:
        raise ValueError(
            f"This answer has {shown} top_logprobs a token, and this head reads {k}: ask for top_logprobs={k}."
        )
    features = torch.tensor([_features(token, k, number) for number, token in enumerate(content)])
    mask = torch.ones(1, len(content), dtype=torch.bool)
    with torch.no_grad():
        rewards = head(features[None].to(head.weight.device), mask).rewards
    return float(rewards[0])


def _features(token: Mapping[str, Any], k: int, number: int) -> list[float]:
    top = [entry.get("logprob") for entry in token.get("top_logprobs") or []]
    if not top:
        raise ValueError(f"Token {number} has no top_logprobs, and this head reads {k}: ask for top_logprobs={k}.")
    own = token.get("logprob")
    wrong = [value for value in (*top, own) if not isinstance(value, int | float) or not value <= _ROUNDED_ZERO]
    if wrong:
        raise ValueError(
            f"Token {number} has {wrong[0]!r} for a log-probability, expected a number of at most 0: ask the server "
            "for log-probabilities, not for probabilities."
        )
    highest = sorted(top, reverse=True)[:k]
    highest += highest[-1:] * (k - len(highest))
    return [max(float(value), LOG_PROBABILITY_FLOOR) for value in (*highest, own)]
