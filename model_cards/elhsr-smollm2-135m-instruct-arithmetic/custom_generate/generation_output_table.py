# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/output_table.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""output_table: what best-of-n returned, as the table that a notebook displays."""

from typing import Any

# More are summed up in a line
_PROMPTS, _CANDIDATES = 8, 32


def output_table(out: Any) -> str:
    """HTML with every candidate's reward and length, the best first; texts need a tokenizer, see `explain`.

    Args:
        out: A [`BestOfNOutput`] with rewards, lengths, pruned and winners.
    """
    rewards, lengths, pruned, winners = (
        getattr(out, name).tolist() for name in ("rewards", "lengths", "pruned", "winners")
    )
    confidence = None if out.confidence is None else out.confidence.tolist()
    parts = [f"<p>Best of {len(rewards[0])} candidates for {len(rewards)} prompt{'s'[: len(rewards) > 1]}.</p>"]
    for row in range(min(len(rewards), _PROMPTS)):
        trust = "" if confidence is None else f", confidence {confidence[row]:.1%}"
        order = sorted(range(len(rewards[row])), key=lambda i: (lengths[row][i] == 0, pruned[row][i], -rewards[row][i]))
        # Winners first, also where votes made others equal to them
        order = winners[row] + [i for i in order if i not in winners[row]]
        lines = []
        for i in order[:_CANDIDATES]:
            mark = "winner" if i == winners[row][0] else "returned" if i in winners[row] else ""
            mark = "pruned" if pruned[row][i] else mark if lengths[row][i] else "never sampled"
            reward = f"{rewards[row][i]:+.3f}" if lengths[row][i] else ""
            lines.append(f"<tr><th>{i}</th><td>{reward}</td><td>{lengths[row][i]}</td><td>{mark}</td></tr>")
        parts.append(
            f"<table><caption>Prompt {row}{trust}</caption><thead><tr><th>candidate</th><th>reward</th><th>tokens</th>"
            f"<th></th></tr></thead><tbody>{''.join(lines)}</tbody></table>"
        )
        if len(order) > _CANDIDATES:
            parts.append(f"<p>And {len(order) - _CANDIDATES} more candidates.</p>")
    if len(rewards) > _PROMPTS:
        parts.append(f"<p>And {len(rewards) - _PROMPTS} more prompts.</p>")
    return "".join(parts)
