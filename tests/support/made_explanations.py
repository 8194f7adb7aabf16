"""An explanation in which every text is a given one, and every number the same each time."""

from hf_elhsr import Explanation
from hf_elhsr.explanation.parts import ExplainedCandidate, ExplainedPrompt, ExplainedToken, LayerShares

_TOKENS = 25


def explanation_of(texts):
    """Candidates of 25 tokens, each a text of the list; the texts as prompts, too, and as the base model's name."""
    tokens = [ExplainedToken(i, text, ((i * 7) % 11) - 5.0, (i % 5) / 4, i / 10 - 2) for i, text in enumerate(texts)]
    shares = LayerShares((0, 3), (1.5, -0.5), 0.25, 0.0)
    candidates = [
        ExplainedCandidate(
            start // _TOKENS,
            reward=2.0 - start / _TOKENS,
            probability=0.5,
            tokens=tuple(tokens[start : start + _TOKENS]),
            winner=start == 0,
            decided=1.0,
            layer_shares=shares,
        )
        for start in range(0, len(tokens), _TOKENS)
    ]
    candidates[-1:] = [
        ExplainedCandidate(len(candidates) - 1, -9.0, None, candidates[-1].tokens, pruned=True),
        ExplainedCandidate(len(candidates), None, None, ()),
    ]
    prompts = [ExplainedPrompt(texts[0], tuple(candidates), confidence=0.5, abstained=True)]
    prompts += [
        ExplainedPrompt(text, (ExplainedCandidate(0, 1.0, 0.7, tokens[i : i + 1], winner=True),))
        for i, text in enumerate(texts)
    ]
    return Explanation(tuple(prompts), calibrated=True, base_model="".join(texts))
