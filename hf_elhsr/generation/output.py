"""BestOfNOutput: what best-of-n returns, how a notebook shows it, and the records of decoding steps in it."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.utils import ModelOutput

# Recorded per decoding step, and per forward pass
_OF_STEPS = ("scores", "logits")
_OF_PASSES = ("hidden_states", "attentions")
NAMES = (*_OF_STEPS, *_OF_PASSES)


class StepRecords:
    """Keeps what `output_scores`, `output_logits`, `output_hidden_states` and `output_attentions` ask for.

    The winners are known only at the end, so everything is kept for all candidates until then: these options cost
    memory in proportion to n. Without them nothing is kept.
    """

    def __init__(self, wanted: frozenset[str] = frozenset()):
        self.wanted = wanted
        # By name and step, for every wave: the candidates in the batch, and a tensor, or a tuple with one per layer
        self._steps: dict[str, list[list[tuple[torch.Tensor, Any]]]] = {name: [] for name in wanted}
        self._next = dict.fromkeys(wanted, 0)

    @classmethod
    def asked_for(cls, generation_config: GenerationConfig) -> "StepRecords":
        """Records of what generate's `output_*` settings ask for; empty without `return_dict_in_generate`."""
        if not generation_config.return_dict_in_generate:
            return cls()
        return cls(frozenset(name for name in NAMES if getattr(generation_config, f"output_{name}", False)))

    def keep(self, name: str) -> bool:
        """Whether the output of this name is kept."""
        return name in self.wanted

    def prefill(self, outputs: Any, batch: int, n: int, device: torch.device) -> None:
        """Record the forward pass over the prompts: row i belongs to candidates i * n to (i + 1) * n - 1."""
        self._n = n
        self.forward(outputs, torch.arange(batch, device=device))

    def start_wave(self) -> None:
        """Begin a wave of candidates; their steps follow the prefill."""
        self._next = {name: int(name in _OF_PASSES) for name in self.wanted}

    def forward(self, outputs: Any, rows: torch.Tensor) -> None:
        """Record a forward pass; `rows` are candidate numbers, or prompt numbers in the prefill."""
        for name in self.wanted.intersection(_OF_PASSES):
            self._add(name, rows, outputs[name])

    def step(self, candidates: torch.Tensor, **values: torch.Tensor | None) -> None:
        """Record scores and logits of one step, one row per candidate."""
        for name in self.wanted & values.keys():
            self._add(name, candidates, values[name])

    def _add(self, name: str, rows: torch.Tensor, value: Any) -> None:
        step = self._next[name]
        if step == len(self._steps[name]):
            self._steps[name].append([])
        self._steps[name][step].append((rows, value))
        self._next[name] = step + 1

    def history(self, name: str) -> tuple[torch.Tensor, ...] | None:
        """All steps of this wave so far, in the form that stopping criteria get scores; None if not kept."""
        if name not in self.wanted:
            return None
        return tuple(waves[-1][1] for waves in self._steps[name][: self._next[name]])

    def of(self, winners: torch.Tensor, lengths: torch.Tensor) -> dict[str, tuple[Any, ...]]:
        """The steps of these candidates, in their order; zeros past a candidate's end.

        Args:
            winners: (rows,) candidate numbers.
            lengths: (rows,) their sampled tokens.
        """
        result: dict[str, tuple[Any, ...]] = {}
        for name, recorded in self._steps.items():
            selected: list[Any] = []
            for step, waves in enumerate(recorded[: int(lengths.max())]):
                is_prefill = step == 0 and name in _OF_PASSES
                # No candidate has a negative number
                wanted = winners // self._n if is_prefill else winners.masked_fill(lengths <= step, -1)
                if isinstance(waves[0][1], torch.Tensor):
                    selected.append(sum(_pick(value, rows, wanted) for rows, value in waves))
                else:
                    by_layer = zip(*(value for _, value in waves), strict=True)
                    selected.append(
                        tuple(
                            sum(_pick(value, rows, wanted) for (rows, _), value in zip(waves, layer, strict=True))
                            for layer in by_layer
                        )
                    )
            result[name] = tuple(selected)
        return result


def _pick(value: torch.Tensor, rows: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    match = rows[None, :] == wanted[:, None]
    present, place = match.any(-1).to(value.device), match.int().argmax(-1).to(value.device)
    return value.index_select(0, place).masked_fill(~present.view(-1, *[1] * (value.ndim - 1)), 0)


# At most this many are listed; a line sums up the rest
_PROMPTS, _CANDIDATES = 8, 32


def output_table(out: Any) -> str:
    """An HTML table of every candidate's reward and length, best first; for texts, see `explain`.

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
        # Winners first, even if votes made other candidates equal to them
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


@dataclass
class BestOfNOutput(ModelOutput):
    """Output of `generate(best_of_n=n, num_return_sequences=k, return_dict_in_generate=True)` for a batch of prompts.

    Args:
        sequences: (batch * k, length) long. The k best of every prompt, best first, prompt included, right-padded
            to the longest of them.
        rewards: (batch, n) float32. R of every candidate; sigmoid(R) estimates P(correct). For a pruned candidate it is
            R of the tokens it has, and -inf for one that was never sampled. With `combine` it is the combined reward;
            votes, for instance.
        source_rewards: (batch, n, sources) float32, with `combine`. The rewards from every source.
        candidates: (batch, n, length) long. Every candidate, prompt included, right-padded to the longest.
        lengths: (batch, n) long. Sampled tokens of every candidate, the EOS included; 0 if never sampled (`adaptive`).
        pruned: (batch, n) bool. Stopped before its end (`prune`, `adaptive`), so that it could not win.
        winners: (batch, k) long. Which candidates `sequences` are.
        confidence: (batch,) float32, if the head has a calibration. Calibrated P(correct) of the best.
        abstained: (batch,) bool, with `min_confidence`. No candidate is trusted that much.
        token_rewards: (batch, n, new_tokens) float32, with `output_token_rewards=True`. r_t, zero past the end.
        token_gates: (batch, n, new_tokens) float32, with `output_token_rewards=True`. g_t, zero past the end.
        scores, logits: As `generate` returns them with `output_scores` / `output_logits`: a tuple over new tokens of
            (batch * k, vocabulary), for the winners; zero past a winner's end.
        attentions, hidden_states: As `generate` returns them with `output_attentions` / `output_hidden_states`, for
            the winners; zero past a winner's end.
    """

    sequences: torch.Tensor | None = None
    rewards: torch.Tensor | None = None
    source_rewards: torch.Tensor | None = None
    candidates: torch.Tensor | None = None
    lengths: torch.Tensor | None = None
    pruned: torch.Tensor | None = None
    winners: torch.Tensor | None = None
    confidence: torch.Tensor | None = None
    abstained: torch.Tensor | None = None
    token_rewards: torch.Tensor | None = None
    token_gates: torch.Tensor | None = None
    scores: tuple[torch.Tensor, ...] | None = None
    logits: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[tuple[torch.Tensor, ...], ...] | None = None
    hidden_states: tuple[tuple[torch.Tensor, ...], ...] | None = None

    def _repr_html_(self) -> str | None:
        # Without these, a notebook shows plain text
        known = (self.rewards, self.lengths, self.pruned, self.winners)
        return None if any(value is None for value in known) else output_table(self)
