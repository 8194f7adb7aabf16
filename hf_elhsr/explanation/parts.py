"""The parts of an explanation: prompts, their candidates, the candidates' tokens, and the layers' shares."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ExplainedToken:
    """A sampled token.

    Args:
        token_id: The token's id in the language model's vocabulary.
        text: What it adds to the text, as the model wrote it; empty if it is part of a character.
        reward: r_t.
        gate: g_t, its weight in R.
        running_reward: R of the tokens up to this one.
    """

    token_id: int
    text: str
    reward: float
    gate: float
    running_reward: float


@dataclass(frozen=True)
class LayerShares:
    """R as a sum of the layers' shares, the head's bias, and rounding.

        R = sum_l share_l + bias + rounding,   share_l = sum_t g_t (w_l h_{l,t}) / sum_t g_t

    Args:
        layers: The head's layers, as in `config.layers`.
        shares: The share of each of these layers.
        bias: What the head's bias adds.
        rounding: The difference between R while decoding and R of these shares, which come from a second pass of the
            language model: almost zero in float32, up to about 0.1 max(1, |R|) in bfloat16.
    """

    layers: tuple[int, ...]
    shares: tuple[float, ...]
    bias: float
    rounding: float


@dataclass(frozen=True)
class ExplainedCandidate:
    """A candidate.

    Args:
        index: Its index in `out.candidates`, from 0.
        reward: R; for a pruned candidate, R of the tokens it has; None if it was never sampled.
        probability: P(correct); None if the candidate was not sampled to its end.
        tokens: Its tokens; empty if it was never sampled.
        winner: Whether it is the best of its prompt.
        pruned: Whether it was stopped before its end, so that it could not win.
        decided: With `combine`, the number that decided in place of R: votes, for instance.
        layer_shares: The layers' shares, if the head reads layers and the language model was passed.
    """

    index: int
    reward: float | None
    probability: float | None
    tokens: tuple[ExplainedToken, ...]
    winner: bool = False
    pruned: bool = False
    decided: float | None = None
    layer_shares: LayerShares | None = None

    @property
    def text(self) -> str:
        """The completion as the model wrote it, including special tokens."""
        return "".join(token.text for token in self.tokens)


@dataclass(frozen=True)
class ExplainedPrompt:
    """A prompt and its candidates.

    Args:
        text: The prompt as the model read it; empty if it was given as embeddings.
        candidates: The candidates, best first; then the pruned ones, and then those never sampled.
        confidence: Calibrated P(correct) of the winner as the best of n, if the head has a calibration.
        abstained: With `min_confidence`, whether no candidate reaches it.
    """

    text: str
    candidates: tuple[ExplainedCandidate, ...]
    confidence: float | None = None
    abstained: bool | None = None


# As a share of the sum of a candidate's gates
_FIRST_WEIGHT = 0.05


def largest_push(prompt: ExplainedPrompt) -> float:
    """The largest g_t |r_t| of all tokens, shown in the strongest colour."""
    pushes = [token.gate * abs(token.reward) for candidate in prompt.candidates for token in candidate.tokens]
    return max([*pushes, 1e-9])


def reward_range(prompt: ExplainedPrompt) -> tuple[float, float]:
    """The lowest and the highest running reward of all candidates, zero included.

    Before the first tokens with some weight, the running reward depends on tokens that hardly count, and can take any
    value: it is left out here, and drawn at the edge.
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
    """By candidate, every layer's share minus its mean over the prompt's candidates.

    Much of every share is the same in all candidates of a prompt. The rest is what distinguishes them; it sums to R
    minus the mean R, except for rounding and vanishing gates.
    """
    own = {candidate.index: candidate.layer_shares.shares for candidate in candidates if candidate.layer_shares}
    means = [sum(column) / len(own) for column in zip(*own.values(), strict=True)]
    return {
        index: tuple(share - mean for share, mean in zip(shares, means, strict=True)) for index, shares in own.items()
    }
