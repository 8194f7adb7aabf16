"""terminal: an explanation for `rich`, in which what a model wrote is plain text."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.style import Style
from rich.text import Text

from .parts import ExplainedCandidate, ExplainedPrompt, ExplainedToken, largest_push, relative_shares, reward_range
from .texts import visible, visible_pieces

# By depth, a background and a readable text colour, for tokens that speak for and against being correct
_FOR = (("#bfdbfe", "#000000"), ("#60a5fa", "#000000"), ("#1d4ed8", "#ffffff"))
_AGAINST = (("#fed7aa", "#000000"), ("#fb923c", "#000000"), ("#9a3412", "#ffffff"))
_BLOCKS = "▁▂▃▄▅▆▇█"
_LINE = 48
_MOST = 5


def terminal(prompts: Sequence[ExplainedPrompt], calibrated: bool, base_model: str | None) -> RenderableType:
    """All prompts with their candidates, best first."""
    parts: list[RenderableType] = []
    for place, prompt in enumerate(prompts):
        title = "Prompt" if len(prompts) == 1 else f"Prompt {place + 1}"
        parts += [Rule(Text(title), align="left"), Text(visible(prompt.text) or "(given as embeddings)")]
        if prompt.confidence is not None:
            asked = ", less than asked for" if prompt.abstained else ""
            parts.append(
                Text(
                    f"Confidence in the winner, as the best of {len(prompt.candidates)}: {prompt.confidence:.1%}{asked}"
                )
            )
        scale, limits = largest_push(prompt), reward_range(prompt)
        relative = relative_shares(prompt.candidates)
        for rank, candidate in enumerate(prompt.candidates):
            parts += ["", _heading(rank, candidate)]
            if candidate.tokens:
                body = Group(*_body(candidate, scale, limits, relative.get(candidate.index)))
                parts.append(Padding(body, (0, 0, 0, 3)))
    made = "calibrated" if calibrated else "sigmoid(R), not calibrated"
    of = "" if base_model is None else f" Head for {visible(base_model)}."
    parts += [
        "",
        Text(
            f"Colour: r, blue for and underlined orange against being correct, by the weight g. R = sum g r / sum g. "
            f"P(correct): {made}.{of}",
            style="dim",
        ),
    ]
    return Group(*parts)


def _heading(rank: int, candidate: ExplainedCandidate) -> Text:
    facts = [f"{rank + 1}. candidate {candidate.index + 1}"]
    if candidate.reward is not None:
        facts.append(f"R {candidate.reward:+.2f}")
    if candidate.probability is not None:
        facts.append(f"P(correct) {candidate.probability:.1%}")
    if candidate.decided is not None:
        facts.append(f"decided by {candidate.decided:+.2f}")
    facts.append(f"{len(candidate.tokens)} tokens" if candidate.tokens else "never sampled")
    marks = [name for name, has in (("winner", candidate.winner), ("pruned", candidate.pruned)) if has]
    return Text(" · ".join([*facts, *marks]), style="bold green" if candidate.winner else "bold")


def _body(
    candidate: ExplainedCandidate, scale: float, limits: tuple[float, float], relative: Sequence[float] | None
) -> list[RenderableType]:
    tokens = candidate.tokens
    texts = visible_pieces(token.text for token in tokens)
    written = Text.assemble(
        *((text or "⟨…⟩", _style(token, scale)) for text, token in zip(texts, tokens, strict=True)), overflow="fold"
    )
    running = _blocks([token.running_reward for token in tokens], *limits)
    facts = [
        f"running reward  {running}  from {tokens[0].running_reward:+.2f} to {tokens[-1].running_reward:+.2f}",
        f"largest weights {_largest_weights(tokens, texts)}",
    ]
    shares = candidate.layer_shares
    if shares is not None and relative is not None:
        top = max(abs(share) for share in shares.shares) or 1.0
        facts += [
            f"layers' shares  {_blocks(shares.shares, -top, top)}  {_largest(shares.layers, shares.shares)}; "
            f"bias {shares.bias:+.2f}; rounding {shares.rounding:+.4f}",
            f"minus the mean  {_largest(shares.layers, relative)}; in total {sum(relative):+.2f}",
        ]
    return [written, *(Text(fact, style="dim") for fact in facts)]


def _style(token: ExplainedToken, scale: float) -> Style:
    push = token.gate * abs(token.reward) / scale
    if push < 0.05:
        return Style.null()
    colour, ink = (_FOR if token.reward >= 0 else _AGAINST)[0 if push < 0.2 else 1 if push < 0.5 else 2]
    return Style(color=ink, bgcolor=colour, underline=token.reward < 0)


def _blocks(values: Sequence[float], low: float, high: float) -> str:
    """Up to 48 of the values, evenly spaced and including the last, as blocks of their heights."""
    count = min(_LINE, len(values))
    shown = [values[(i + 1) * len(values) // count - 1] for i in range(count)]
    steps = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round(min(1.0, max(0.0, (value - low) / (high - low))) * steps)] for value in shown)


def _largest_weights(tokens: Sequence[ExplainedToken], texts: Sequence[str]) -> str:
    """The tokens that R depends on most, in the order of the text."""
    by_push = sorted(range(len(tokens)), key=lambda i: -tokens[i].gate * abs(tokens[i].reward))
    return ", ".join(
        f"{texts[i].strip() or 'space'} (r {tokens[i].reward:+.2f}, g {tokens[i].gate:.2f})"
        for i in sorted(by_push[:_MOST])
    )


def _largest(layers: Sequence[int], shares: Sequence[float]) -> str:
    order = sorted(range(len(layers)), key=lambda i: -abs(shares[i]))[:_MOST]
    return ", ".join(f"{layers[i]}: {shares[i]:+.2f}" for i in order)
