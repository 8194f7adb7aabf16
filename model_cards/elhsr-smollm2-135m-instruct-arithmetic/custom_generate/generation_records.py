# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/records.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""StepRecords: scores, logits, hidden states and attentions of every step, of which the winners' are returned."""

from typing import Any

import torch
from transformers import GenerationConfig

NAMES = ("scores", "logits", "hidden_states", "attentions")


class StepRecords:
    """Keeps what `output_scores`, `output_logits`, `output_hidden_states` and `output_attentions` ask for.

    The winners are known only at the end, so everything is kept for all candidates until then: these options cost
    memory in proportion to n. Without them nothing is kept.
    """

    def __init__(self, wanted: frozenset[str] = frozenset()):
        self.wanted = wanted
        # per name and step, for every wave: the candidates in the batch then, and a tensor or a tuple (a layer each)
        self._steps: dict[str, list[list[tuple[torch.Tensor, Any]]]] = {name: [] for name in wanted}
        self._next = dict.fromkeys(wanted, 0)

    @classmethod
    def asked_for(cls, generation_config: GenerationConfig) -> "StepRecords":
        """What generate's `output_*` settings ask for; nothing without `return_dict_in_generate`."""
        if not generation_config.return_dict_in_generate:
            return cls()
        return cls(frozenset(name for name in NAMES if getattr(generation_config, f"output_{name}", False)))

    def prefill(self, outputs: Any, batch: int, n: int, device: torch.device) -> None:
        """The forward pass over the prompts: row i belongs to candidates i * n to (i + 1) * n - 1."""
        self._n = n
        self.forward(outputs, torch.arange(batch, device=device))

    def start_wave(self) -> None:
        """Candidates start, from the prefill."""
        self._next = {name: int(name in ("hidden_states", "attentions")) for name in self.wanted}

    def forward(self, outputs: Any, rows: torch.Tensor) -> None:
        """A forward pass, and whose row is whose: candidate numbers, or prompt numbers in the prefill."""
        for name in self.wanted & {"hidden_states", "attentions"}:
            self._add(name, rows, outputs[name])

    def step(self, candidates: torch.Tensor, **values: torch.Tensor | None) -> None:
        """Scores and logits of one step, and whose row is whose."""
        for name in self.wanted & values.keys():
            self._add(name, candidates, values[name])

    def _add(self, name: str, rows: torch.Tensor, value: Any) -> None:
        step = self._next[name]
        if step == len(self._steps[name]):
            self._steps[name].append([])
        self._steps[name][step].append((rows, value))
        self._next[name] = step + 1

    def history(self, name: str) -> tuple[torch.Tensor, ...] | None:
        """All steps of this wave so far, as stopping criteria are shown the scores; None where not asked for."""
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
                is_prefill = step == 0 and name in ("hidden_states", "attentions")
                # Nobody has a negative number
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
