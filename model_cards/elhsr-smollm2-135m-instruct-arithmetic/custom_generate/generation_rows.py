# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/rows.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""Rows of the running batch: how they multiply and leave, in the cache, the model's inputs and the processors."""

import copy
from typing import Any

import torch
from transformers import Cache, LogitsProcessorList, StoppingCriteriaList
from transformers.generation import logits_process, stopping_criteria

from .rewards_caches import CACHE_NAMES

# These look at a row's own tokens and at settings that hold for all rows, and at nothing else. Subclasses do not
# count, since they may keep anything.
_INDEPENDENT_OF_ROWS = {
    logits_process.TemperatureLogitsWarper,
    logits_process.TopKLogitsWarper,
    logits_process.TopPLogitsWarper,
    logits_process.TopHLogitsWarper,
    logits_process.MinPLogitsWarper,
    logits_process.TypicalLogitsWarper,
    logits_process.EpsilonLogitsWarper,
    logits_process.EtaLogitsWarper,
    logits_process.MinLengthLogitsProcessor,
    logits_process.MinNewTokensLengthLogitsProcessor,
    logits_process.NoRepeatNGramLogitsProcessor,
    logits_process.SequenceBiasLogitsProcessor,
    logits_process.NoBadWordsLogitsProcessor,
    logits_process.ForcedBOSTokenLogitsProcessor,
    logits_process.ForcedEOSTokenLogitsProcessor,
    logits_process.InfNanRemoveLogitsProcessor,
    logits_process.ExponentialDecayLengthPenalty,
    logits_process.SuppressTokensAtBeginLogitsProcessor,
    logits_process.SuppressTokensLogitsProcessor,
    logits_process.LogitNormalization,
    stopping_criteria.MaxLengthCriteria,
    stopping_criteria.MaxTimeCriteria,
    stopping_criteria.StopStringCriteria,
    stopping_criteria.EosTokenCriteria,
}
# Has one number per row, which `select_processor_rows` can select.
_SELECTABLE = {logits_process.RepetitionPenaltyLogitsProcessor}


def stateful(processors: LogitsProcessorList, criteria: StoppingCriteriaList) -> list[str]:
    """Names of what may keep state per row; where there is none, finished rows may leave the batch."""
    known = _INDEPENDENT_OF_ROWS | _SELECTABLE
    return [type(item).__name__ for item in (*processors, *criteria) if type(item) not in known]


def select_model_kwargs(model_kwargs: dict[str, Any], index: torch.Tensor, rows: int) -> dict[str, Any]:
    """The model's inputs with row i taken from former row index[i]; rows may multiply or leave.

    The cache among them is changed in place, all else is left as it was.

    Every cache of transformers supports `reorder_cache`, whatever its layers hold (keys and values, quantised ones,
    recurrent states); its other row-wise methods do not reach all layers.
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
    if model_kwargs.get("use_cache") and not any(isinstance(cache, Cache) for cache in caches):
        raise ValueError(
            f"{model_name} keeps its state in a form whose rows cannot be multiplied, so best_of_n cannot share the "
            "prompt among candidates. Pass use_cache=False: slower, but it works."
        )


def multiply_processors(
    processors: LogitsProcessorList, batch: int, prompt_of_row: torch.Tensor
) -> LogitsProcessorList:
    """The processors that `generate` built for the prompts, for rows that belong to these prompts.

    The user's own are passed on as they are: like those given with `num_return_sequences`, they see all rows.
    """
    return LogitsProcessorList(_multiplied(processor, batch, prompt_of_row) for processor in processors)


def select_processor_rows(processors: LogitsProcessorList, index: torch.Tensor) -> LogitsProcessorList:
    """The processors for the rows that stay."""
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
    if type(processor) is logits_process.RepetitionPenaltyLogitsProcessor:
        return _with_ignored_lengths(
            processor,
            lambda lengths: lengths[prompt_of_row.to(lengths.device)] if len(lengths) == batch else lengths,
        )
    if type(processor) is logits_process.PrefixConstrainedLogitsProcessor:
        # Its "beams" are rows that share a prompt, which is what candidates are: the function is told the prompt
        return logits_process.PrefixConstrainedLogitsProcessor(
            processor._prefix_allowed_tokens_fn, len(prompt_of_row) // batch
        )
    if type(processor) is logits_process.UnbatchedClassifierFreeGuidanceLogitsProcessor:
        changed = copy.copy(processor)
        changed.unconditional_context = {
            name: value.index_select(0, prompt_of_row.to(value.device)) if isinstance(value, torch.Tensor) else value
            for name, value in processor.unconditional_context.items()
        }
        return changed
    return processor
