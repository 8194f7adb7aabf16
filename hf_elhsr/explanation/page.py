"""page: an explanation as one HTML file that loads and runs nothing, and shows what a model wrote as plain text."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from .parts import (
    ExplainedCandidate,
    ExplainedPrompt,
    ExplainedToken,
    LayerShares,
    largest_push,
    relative_shares,
    reward_range,
)
from .texts import visible, visible_pieces

_FOLDER = Path(__file__).parent
# Size of a chart, in its own units; the page stretches it
_WIDTH, _HEIGHT = 300.0, 60.0
_STEPS = 4
# In characters
_PREVIEW = 90


def page(prompts: Sequence[ExplainedPrompt], calibrated: bool, base_model: str | None) -> str:
    """The whole page. Its security policy allows its style by a hash, and nothing else."""
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(autoescape=True, finalize=_seen, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["signed"] = "{:+.2f}".format
    template = environment.from_string((_FOLDER / "page.html").read_text(encoding="utf-8"))
    return template.render(
        style=Markup(style),
        style_hash=digest,
        calibrated=calibrated,
        base_model=base_model,
        prompts=[_prompt(prompt) for prompt in prompts],
        width=_WIDTH,
        height=_HEIGHT,
    )


def _seen(value: Any) -> Any:
    """Make a value of the template visible before it is escaped; applied to every expression."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _prompt(prompt: ExplainedPrompt) -> dict[str, Any]:
    low, high = reward_range(prompt)
    scale = largest_push(prompt)
    sampled = [candidate for candidate in prompt.candidates if candidate.tokens]
    relative = relative_shares(sampled)
    return {
        "prompt": prompt,
        "low": low,
        "high": high,
        "zero": _height(0.0, low, high),
        "candidates": [
            {
                "candidate": candidate,
                "tokens": _tokens(candidate.tokens, scale),
                "preview": _preview(candidate.text),
                "line": _line(candidate, low, high),
                "layers": _layers(candidate.layer_shares, relative.get(candidate.index)),
            }
            for candidate in prompt.candidates
        ],
    }


def _tokens(tokens: Sequence[ExplainedToken], scale: float) -> list[dict[str, Any]]:
    texts = visible_pieces(token.text for token in tokens)
    return [
        {
            "token": token,
            # Line ends are shown, so that their colour is visible
            "text": text.replace("\n", "↵\n").replace("\t", "⇥\t") or "⟨…⟩",
            "sign": "p" if token.reward >= 0 else "n",
            "strength": _step(abs(token.reward) / scale),
            "gate": _step(token.gate),
        }
        for token, text in zip(tokens, texts, strict=True)
    ]


def _preview(text: str) -> str:
    """The end of the text, where answers are, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _PREVIEW else "…" + line[-_PREVIEW:]


def _step(share: float) -> int:
    """A step from 0 to 4; a share of an eighth or more is visible."""
    return min(_STEPS, round(share * _STEPS))


def _height(value: float, low: float, high: float) -> float:
    return round(_HEIGHT * (high - min(high, max(low, value))) / (high - low), 2)


def _line(candidate: ExplainedCandidate, low: float, high: float) -> str:
    """The running reward as points of an SVG line."""
    values = [token.running_reward for token in candidate.tokens]
    # A single token is drawn as a line as well
    values = values * 2 if len(values) == 1 else values
    wide = _WIDTH / max(1, len(values) - 1)
    return " ".join(f"{i * wide:.1f},{_height(value, low, high)}" for i, value in enumerate(values))


def _layers(shares: LayerShares | None, relative: Sequence[float] | None) -> dict[str, Any] | None:
    if shares is None or relative is None:
        return None
    charts = {}
    for name, values in (("share", shares.shares), ("relative", relative)):
        top = max([abs(value) for value in values] + [1e-9])
        wide, half = _WIDTH / len(values), _HEIGHT / 2
        charts[name] = {
            "top": top,
            "bars": [
                {
                    "layer": layer,
                    "value": value,
                    "x": round(i * wide + wide * 0.1, 2),
                    "width": round(wide * 0.8, 2),
                    "y": round(half - max(value, 0.0) / top * half, 2),
                    "height": round(max(abs(value) / top * half, 0.3), 2),
                    "sign": "p" if value >= 0 else "n",
                }
                for i, (layer, value) in enumerate(zip(shares.layers, values, strict=True))
            ],
        }
    rows = list(zip(shares.layers, shares.shares, relative, strict=True))
    return {"charts": charts, "rows": rows, "shares": shares, "relative": sum(relative)}
