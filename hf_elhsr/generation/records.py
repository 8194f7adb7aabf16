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
        # per name and step: the candidates in the batch then, and a tensor or a tuple (a layer each) of tensors
        self._steps: dict[str, list[tuple[torch.Tensor, Any]]] = {name: [] for name in wanted}

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

    def forward(self, outputs: Any, rows: torch.Tensor) -> None:
        """A forward pass, and whose row is whose: candidate numbers, or prompt numbers in the prefill."""
        for name in self.wanted & {"hidden_states", "attentions"}:
            self._steps[name].append((rows, outputs[name]))

    def step(self, candidates: torch.Tensor, **values: torch.Tensor) -> None:
        """Scores and logits of one step, and whose row is whose."""
        for name in self.wanted & values.keys():
            self._steps[name].append((candidates, values[name]))

    def history(self, name: str) -> tuple[torch.Tensor, ...] | None:
        """All steps so far, as stopping criteria are shown the scores; None where they were not asked for."""
        if name not in self.wanted:
            return None
        return tuple(value for _, value in self._steps[name])

    def of(self, winners: torch.Tensor, steps: int) -> dict[str, tuple[Any, ...]]:
        """The first `steps` steps of these candidates, in their order; zeros where a candidate had left.

        Args:
            winners: (rows,) candidate numbers.
        """
        result: dict[str, tuple[Any, ...]] = {}
        for name, recorded in self._steps.items():
            selected: list[Any] = []
            for step, (candidates, value) in enumerate(recorded[:steps]):
                is_prefill = step == 0 and name in ("hidden_states", "attentions")
                wanted = winners // self._n if is_prefill else winners
                match = candidates[None, :] == wanted[:, None]
                present, place = match.any(-1), match.int().argmax(-1)
                if isinstance(value, torch.Tensor):
                    selected.append(_pick(value, present, place))
                else:
                    selected.append(tuple(_pick(layer, present, place) for layer in value))
            result[name] = tuple(selected)
        return result


def _pick(value: torch.Tensor, present: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    present, place = present.to(value.device), place.to(value.device)
    return value.index_select(0, place).masked_fill(~present.view(-1, *[1] * (value.ndim - 1)), 0)
