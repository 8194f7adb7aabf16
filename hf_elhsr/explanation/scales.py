"""What tokens, candidates and layers of one prompt are measured by, so that they can be compared."""

from collections.abc import Sequence

from .parts import ExplainedCandidate, ExplainedPrompt

# Of all the gates of a candidate
_FIRST_WEIGHT = 0.05


def largest_push(prompt: ExplainedPrompt) -> float:
    """The largest g_t |r_t| of all tokens: what the strongest colour stands for."""
    pushes = [token.gate * abs(token.reward) for candidate in prompt.candidates for token in candidate.tokens]
    return max([*pushes, 1e-9])


def reward_range(prompt: ExplainedPrompt) -> tuple[float, float]:
    """The lowest and the highest running reward of all candidates, zero included.

    Before the first tokens of any weight, the running reward is that of tokens that hardly count, and may be anything:
    it is left out, and drawn at the edge.
    """
    values = [0.0]
    for candidate in prompt.candidates:
        total, weight = sum(token.gate for token in candidate.tokens), 0.0
        for token in candidate.tokens:
            weight += token.gate
            if weight >= _FIRST_WEIGHT * total:
                values.append(token.running_reward)
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 1.0, high + 1.0)


def relative_shares(candidates: Sequence[ExplainedCandidate]) -> dict[int, tuple[float, ...]]:
    """By candidate, every layer's share less its mean over the prompt's candidates.

    Much of every share is alike in all candidates of a prompt; what sets them apart is the rest, whose sum is R less
    the mean R, but for rounding and where gates vanish.
    """
    own = {candidate.index: candidate.layer_shares.shares for candidate in candidates if candidate.layer_shares}
    means = [sum(column) / len(own) for column in zip(*own.values(), strict=True)]
    return {
        index: tuple(share - mean for share, mean in zip(shares, means, strict=True)) for index, shares in own.items()
    }
