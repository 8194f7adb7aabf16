# Made by hf_elhsr 0.1.0 from its hf_elhsr/modeling_signals.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""What h_t is, where it is not made of hidden states: the distribution that token t was drawn from."""

import torch

#: Log-probabilities below it count as it: what is as good as impossible has many names, -9999 among them.
LOG_PROBABILITY_FLOOR = -50.0


def distribution_features(
    signal: str, logits: torch.Tensor, token_ids: torch.Tensor, num_log_probabilities: int | None
) -> torch.Tensor:
    """h_t of sampled tokens for the signals "logits" and "top_log_probabilities".

    Args:
        logits: (..., vocabulary), raw: of the distribution that each token was drawn from, before any processor.
        token_ids: (...) long, the tokens drawn.
        num_log_probabilities: k, for "top_log_probabilities".

    Returns:
        (..., vocabulary), the logits themselves; or (..., k + 1) float32, see [`top_log_probabilities`].

    Raises:
        ValueError: Another signal.
    """
    if signal == "logits":
        return logits
    if signal == "top_log_probabilities" and num_log_probabilities is not None:
        return top_log_probabilities(logits, token_ids, num_log_probabilities)
    raise ValueError(f"The signal {signal!r} is not made of a distribution.")


def top_log_probabilities(logits: torch.Tensor, token_ids: torch.Tensor, k: int) -> torch.Tensor:
    """The k highest log-probabilities in nats, highest first, and then that of the token drawn, none below the floor.

    Args:
        logits: (..., vocabulary).
        token_ids: (...) long.

    Returns:
        (..., k + 1) float32.
    """
    logits = logits.float()
    normalizer = logits.logsumexp(dim=-1, keepdim=True)
    drawn = logits.gather(-1, token_ids.to(logits.device)[..., None])
    chosen = torch.cat([logits.topk(k, dim=-1).values, drawn], dim=-1)
    return (chosen - normalizer).clamp_min(LOG_PROBABILITY_FLOOR)
