# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/running_batch.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""Prompts and Rows: the prompts after the prefill, and the batch of candidates that runs from them."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessorList, PreTrainedModel

from .rewards_caches import CACHE_NAMES, copy_cache
from .generation_rows import multiply_processors, select_model_kwargs, select_processor_rows
from .generation_shared_prompt import SharedPromptCache


@dataclass
class Prompts:
    """The prompts after the prefill, one row each, from which any number of candidates can start.

    Args:
        input_ids: (prompts, length) long.
        logits: (prompts, vocabulary) float32, raw, of the first token.
        may_share: Whether candidates share their prompt's keys and values, where the cache is of that kind.
    """

    input_ids: torch.Tensor
    logits: torch.Tensor
    model_kwargs: dict[str, Any]
    logits_processor: LogitsProcessorList
    may_share: bool = True

    def rows(self, model: PreTrainedModel, candidates: torch.Tensor, n: int, last: bool) -> "Rows":
        """A row for each of these candidates.

        Args:
            candidates: (rows,) long, ascending; candidate c belongs to prompt c // n.
            last: No more rows will be asked for, so that the prompts' cache may be used up.
        """
        prompts = len(self.input_ids)
        prompt_of_row = candidates // n
        shared: dict[str, Any] = {}
        model_kwargs = dict(self.model_kwargs)
        mask = model_kwargs.get("attention_mask")
        if self.may_share and SharedPromptCache.can_hold(model, model_kwargs.get("past_key_values"), mask):
            cache = model_kwargs.pop("past_key_values")
            # The mask has an entry for the first sampled token already
            mask = None if mask is None else mask[:, : cache.get_seq_length()]
            shared["past_key_values"] = SharedPromptCache(cache, mask, prompt_of_row)
        elif not last:
            copies = {
                name: copy_cache(model_kwargs[name]) for name in CACHE_NAMES if model_kwargs.get(name) is not None
            }
            model_kwargs |= copies
        model_kwargs = select_model_kwargs(model_kwargs, prompt_of_row, rows=prompts) | shared
        return Rows(
            input_ids=self.input_ids[prompt_of_row],
            logits=self.logits[prompt_of_row],
            candidates=candidates,
            unfinished=torch.ones_like(candidates, dtype=torch.bool),
            model_kwargs=model_kwargs,
            logits_processor=multiply_processors(self.logits_processor, prompts, prompt_of_row),
        )


@dataclass
class Rows:
    """The running batch: everything that has one entry per row, and multiplies and leaves together.

    Args:
        input_ids: (rows, length) long, the prompt and everything sampled so far.
        logits: (rows, vocabulary) float32, raw, of the next token.
        candidates: (rows,) long, which candidate a row is.
        unfinished: (rows,) bool, false for rows that have ended and stay.
    """

    input_ids: torch.Tensor
    logits: torch.Tensor
    candidates: torch.Tensor
    unfinished: torch.Tensor
    model_kwargs: dict[str, Any]
    logits_processor: LogitsProcessorList

    def keep_unfinished(self, outputs: Any) -> "Rows":
        """The rows that go on, with the logits of their next tokens from the model's outputs for all rows."""
        keep = self.unfinished.nonzero().squeeze(-1)
        return Rows(
            input_ids=self.input_ids[keep],
            logits=last_logits(outputs, self.input_ids, keep),
            candidates=self.candidates[keep],
            unfinished=self.unfinished[keep],
            model_kwargs=select_model_kwargs(self.model_kwargs, keep, rows=len(self.input_ids)),
            logits_processor=select_processor_rows(self.logits_processor, keep),
        )


def last_logits(outputs: Any, input_ids: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
    """(rows, vocabulary) float32: the raw logits of the last position, of all rows or of some, (rows,) long."""
    logits = outputs.logits[:, -1] if rows is None else outputs.logits[rows.to(outputs.logits.device), -1]
    # Copied, so that the logits of the whole prompt can be freed
    return logits.to(copy=rows is None, dtype=torch.float32, device=input_ids.device)
