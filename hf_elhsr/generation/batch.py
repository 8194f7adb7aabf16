"""Prompts and Rows: the running batch, and how everything in it multiplies and leaves row by row, caches included."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import Cache, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

from ..transformers_internals import prefix_function
from .shared_prompt import SharedPromptCache

#: The names of the arguments by which models take their cache.
CACHE_NAMES = ("past_key_values", "cache_params")


def uses_cache(setting: bool | None) -> bool:
    """Whether a `use_cache` setting makes the model keep a cache; it does if unset."""
    return setting is None or bool(setting)


def inputs_of_last_token(model: PreTrainedModel, input_ids: torch.Tensor, model_kwargs: dict[str, Any]) -> Any:
    """The inputs of the forward pass over the last token of every row; without a cache, over whole rows."""
    length = 1 if uses_cache(model_kwargs.get("use_cache")) else None
    return model.prepare_inputs_for_generation(input_ids, next_sequence_length=length, **model_kwargs)


def copy_cache(cache: Cache) -> Cache:
    """A copy that shares nothing with the original, of a cache that may have been filled with gradients on."""
    memo: dict[int, Any] = {}
    for layer in cache.layers:
        for value in vars(layer).values():
            for tensor in value.values() if isinstance(value, dict) else [value]:
                if isinstance(tensor, torch.Tensor) and not tensor.is_leaf:
                    # deepcopy refuses tensors with a gradient history
                    memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(cache, memo)


# These read a row's own tokens and settings that hold for all rows, and nothing else. Subclasses do not count, since
# they may keep any state.
_INDEPENDENT_OF_ROWS = {
    transformers.TemperatureLogitsWarper,
    transformers.TopKLogitsWarper,
    transformers.TopPLogitsWarper,
    transformers.TopHLogitsWarper,
    transformers.MinPLogitsWarper,
    transformers.TypicalLogitsWarper,
    transformers.EpsilonLogitsWarper,
    transformers.EtaLogitsWarper,
    transformers.MinLengthLogitsProcessor,
    transformers.MinNewTokensLengthLogitsProcessor,
    transformers.NoRepeatNGramLogitsProcessor,
    transformers.SequenceBiasLogitsProcessor,
    transformers.NoBadWordsLogitsProcessor,
    transformers.ForcedBOSTokenLogitsProcessor,
    transformers.ForcedEOSTokenLogitsProcessor,
    transformers.InfNanRemoveLogitsProcessor,
    transformers.ExponentialDecayLengthPenalty,
    transformers.SuppressTokensAtBeginLogitsProcessor,
    transformers.SuppressTokensLogitsProcessor,
    transformers.LogitNormalization,
    transformers.MaxLengthCriteria,
    transformers.MaxTimeCriteria,
    transformers.StopStringCriteria,
    transformers.EosTokenCriteria,
}
# Has one number per row, which `select_processor_rows` can select.
_SELECTABLE = {transformers.RepetitionPenaltyLogitsProcessor}


def stateful(processors: LogitsProcessorList, criteria: StoppingCriteriaList) -> list[str]:
    """Names of processors and criteria that may keep state per row; without any, finished rows may leave the batch."""
    known = _INDEPENDENT_OF_ROWS | _SELECTABLE
    return [type(item).__name__ for item in (*processors, *criteria) if type(item) not in known]


def select_model_kwargs(model_kwargs: dict[str, Any], index: torch.Tensor, rows: int) -> dict[str, Any]:
    """The model's inputs with row i taken from former row index[i]; rows may multiply or leave.

    The cache among them is changed in place; everything else is left as it was.

    Every cache of transformers supports `reorder_cache`, whatever its layers hold (keys and values, quantised or not,
    or recurrent states); its other row-wise methods do not reach all layers.
    """
    selected = dict(model_kwargs)
    for name, value in model_kwargs.items():
        if name in CACHE_NAMES and value is not None:
            value.reorder_cache(index)
        elif isinstance(value, torch.Tensor) and value.ndim > 0:
            # Multimodal position ids are (3, rows, length)
            dim = 1 if name == "position_ids" and value.ndim == 3 else 0
            if value.shape[dim] == rows:
                selected[name] = value.index_select(dim, index.to(value.device))
    return selected


def check_cache(model_kwargs: dict[str, Any], model_name: str) -> None:
    """Refuse a model whose state is not a `Cache`, since its rows could not multiply."""
    caches = [model_kwargs[name] for name in CACHE_NAMES if model_kwargs.get(name) is not None]
    if uses_cache(model_kwargs.get("use_cache")) and not any(isinstance(cache, Cache) for cache in caches):
        raise ValueError(
            f"{model_name} keeps its state in a form whose rows cannot be multiplied, so best_of_n cannot share the "
            "prompt among candidates. Pass use_cache=False, which is slower but works."
        )


def multiply_processors(
    processors: LogitsProcessorList, batch: int, prompt_of_row: torch.Tensor
) -> LogitsProcessorList:
    """Adapt the processors that `generate` built for the prompts to rows that belong to these prompts.

    The user's own are passed on unchanged: as with `num_return_sequences`, they see all rows.
    """
    return LogitsProcessorList(_multiplied(processor, batch, prompt_of_row) for processor in processors)


def select_processor_rows(processors: LogitsProcessorList, index: torch.Tensor) -> LogitsProcessorList:
    """Adapt the processors to the rows that stay."""
    return LogitsProcessorList(
        _with_ignored_lengths(processor, lambda lengths: lengths[index.to(lengths.device)])
        if type(processor) in _SELECTABLE
        else processor
        for processor in processors
    )


def _with_ignored_lengths(processor: Any, change: Any) -> Any:
    if not isinstance(processor.prompt_ignore_length, torch.Tensor):
        return processor
    changed = copy.copy(processor)
    changed.prompt_ignore_length = change(processor.prompt_ignore_length)
    return changed


def _multiplied(processor: Any, batch: int, prompt_of_row: torch.Tensor) -> Any:
    if type(processor) is transformers.RepetitionPenaltyLogitsProcessor:
        return _with_ignored_lengths(
            processor,
            lambda lengths: lengths[prompt_of_row.to(lengths.device)] if len(lengths) == batch else lengths,
        )
    if type(processor) is transformers.PrefixConstrainedLogitsProcessor:
        # Its "beams" are rows that share a prompt, as candidates do: the function is called with the prompt's number
        return transformers.PrefixConstrainedLogitsProcessor(prefix_function(processor), len(prompt_of_row) // batch)
    if type(processor) is transformers.UnbatchedClassifierFreeGuidanceLogitsProcessor:
        changed = copy.copy(processor)
        changed.unconditional_context = {
            name: value.index_select(0, prompt_of_row.to(value.device)) if isinstance(value, torch.Tensor) else value
            for name, value in processor.unconditional_context.items()
        }
        return changed
    return processor


@dataclass
class Prompts:
    """The prompts after the prefill, one row each, from which any number of candidates can start.

    Args:
        input_ids: (prompts, length) long.
        logits: (prompts, vocabulary) float32, raw, of the first token.
        may_share: Whether candidates share their prompt's keys and values if the cache allows it.
    """

    input_ids: torch.Tensor
    logits: torch.Tensor
    model_kwargs: dict[str, Any]
    logits_processor: LogitsProcessorList
    may_share: bool = True

    def rows(self, model: PreTrainedModel, candidates: torch.Tensor, n: int, last: bool) -> "Rows":
        """Start a row for each of these candidates.

        Args:
            candidates: (rows,) long, ascending; candidate c belongs to prompt c // n.
            last: No more rows will be asked for, so the prompts' cache need not be copied.
        """
        prompts = len(self.input_ids)
        prompt_of_row = candidates // n
        shared: dict[str, Any] = {}
        model_kwargs = dict(self.model_kwargs)
        mask = model_kwargs.get("attention_mask")
        if self.may_share and SharedPromptCache.can_hold(model, model_kwargs.get("past_key_values"), mask):
            cache = model_kwargs.pop("past_key_values")
            # The mask already has an entry for the first sampled token
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
        """The unfinished rows, with the logits of their next tokens from the model's outputs for all rows."""
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
