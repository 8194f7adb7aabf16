"""The decoding loop: n candidates of every prompt, followed by signal processors token by token.

It is transformers' sampling loop with three differences. The prompt is prefilled once and its cache rows are then
multiplied. Every sampled token is fed back, the last one too, because the hidden state of a token exists only once
the token has been fed. And a finished candidate leaves the batch, where nothing keeps state per row.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StaticCache, StoppingCriteriaList
from transformers.generation import stopping_criteria as criteria_module

from ..rewards import SignalProcessorList
from ..signals import read_step
from .records import StepRecords
from .rows import (
    CACHE_NAMES,
    check_cache,
    copy_cache,
    multiply_processors,
    rows_may_leave,
    select_model_kwargs,
    select_processor_rows,
)
from .sampling import draw_tokens, with_partial_top_p


@dataclass(frozen=True)
class CandidateRequest:
    """What the mixin asks the loop for: n candidates per prompt, seen by these processors."""

    n: int
    processors: SignalProcessorList


@dataclass
class Candidates:
    """What the loop gives back.

    Args:
        token_ids: (batch, n, length) long, prompt included, padded on the right with `pad_token_id`.
        lengths: (batch, n) long, sampled tokens of every candidate, the EOS included.
        prompt_length: How many of the positions are the (left-padded) prompt.
        generation_config: The one in force, defaults filled in.
        records: Scores, logits, hidden states and attentions, as far as asked for.
    """

    token_ids: torch.Tensor
    lengths: torch.Tensor
    prompt_length: int
    pad_token_id: int
    generation_config: GenerationConfig
    records: StepRecords = field(default_factory=StepRecords)

    def completion(self, prompt: int, candidate: int) -> torch.Tensor:
        """(tokens,) long: what was sampled, the EOS included, nothing else."""
        end = self.prompt_length + int(self.lengths[prompt, candidate])
        return self.token_ids[prompt, candidate, self.prompt_length : end]


def sample_candidates(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    request: CandidateRequest,
    model_kwargs: dict[str, Any],
) -> Candidates:
    """Sample `request.n` candidates for every prompt; arguments as `generate` hands them to its decoding methods.

    Args:
        input_ids: (batch, prompt_length), left-padded.

    Raises:
        ValueError: What best-of-n cannot do with this model and these arguments, before anything is sampled.
    """
    batch, prompt_length = input_ids.shape
    pad_token_id = _pad_token_id(generation_config, stopping_criteria)
    check_context_length(model, prompt_length)
    model_kwargs = _prepare_model_kwargs(model, generation_config, model_kwargs, batch)
    processors, needs = request.processors, request.processors.needs
    records = StepRecords.asked_for(generation_config)

    outputs = model._prefill(input_ids, generation_config, model_kwargs, is_first_iteration=True)
    model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs, is_encoder_decoder=False)
    check_cache(model_kwargs, type(model).__name__)
    records.prefill(outputs, batch, request.n, input_ids.device)

    processors.begin(batch, input_ids.device)
    prompt_of_row = torch.arange(batch, device=input_ids.device).repeat_interleave(request.n)
    # Embeddings of the prompt have been consumed
    model_kwargs.pop("inputs_embeds", None)
    model_kwargs = select_model_kwargs(model_kwargs, prompt_of_row, rows=batch)
    logits_processor = multiply_processors(logits_processor, batch, request.n)
    processors.candidates_multiplied(prompt_of_row)
    input_ids = input_ids[prompt_of_row]
    logits = _last_logits(outputs, input_ids)[prompt_of_row]
    del outputs

    if needs.layers and not model_kwargs.get("output_hidden_states"):
        model_kwargs["output_hidden_states"] = sorted(needs.layers)
    compiled = model._valid_auto_compile_criteria(model_kwargs, generation_config)
    forward: Callable[..., Any] = (
        model.get_compiled_call(generation_config.compile_config) if compiled else model.__call__
    )
    may_leave = not compiled and rows_may_leave(logits_processor, stopping_criteria)
    logits_processor = with_partial_top_p(logits_processor)

    candidates = torch.arange(len(input_ids), device=input_ids.device)
    unfinished = torch.ones_like(candidates, dtype=torch.bool)
    lengths = torch.zeros_like(candidates)
    finished_ids: dict[int, torch.Tensor] = {}

    with model._optimize_model_for_decode():
        while True:
            scores = logits_processor(input_ids, logits)
            records.step(candidates, scores=scores, logits=logits)
            tokens = draw_tokens(scores) if generation_config.do_sample else scores.argmax(dim=-1)
            tokens = tokens.masked_fill(~unfinished, pad_token_id)
            input_ids = torch.cat([input_ids, tokens[:, None]], dim=-1)
            lengths[candidates] += unfinished
            active, unfinished = unfinished, unfinished & ~stopping_criteria(input_ids, records.history("scores"))
            any_left = bool(unfinished.any())

            outputs = None
            if any_left or needs.layers:
                inputs = model.prepare_inputs_for_generation(
                    input_ids, next_sequence_length=1 if model_kwargs["use_cache"] else None, **model_kwargs
                )
                outputs = forward(**inputs, return_dict=True)
                model_kwargs = model._update_model_kwargs_for_generation(
                    outputs, model_kwargs, is_encoder_decoder=False
                )
            processors(input_ids, read_step(outputs, logits, candidates, active, needs))
            ended = candidates[active & ~unfinished]
            if len(ended):
                processors.candidates_left(ended)
            if not any_left:
                break

            logits = _last_logits(outputs, input_ids)
            records.forward(outputs, candidates)
            del outputs
            if may_leave and len(ended):
                finished_ids |= zip(ended.tolist(), input_ids[~unfinished], strict=True)
                keep = unfinished.nonzero().squeeze(-1)
                model_kwargs = select_model_kwargs(model_kwargs, keep, rows=len(input_ids))
                logits_processor = select_processor_rows(logits_processor, keep)
                input_ids, logits, candidates = input_ids[keep], logits[keep], candidates[keep]
                unfinished = unfinished[keep]

    finished_ids |= zip(candidates.tolist(), input_ids, strict=True)
    token_ids = nn.utils.rnn.pad_sequence(
        [finished_ids[candidate] for candidate in range(batch * request.n)],
        batch_first=True,
        padding_value=pad_token_id,
    )
    return Candidates(
        token_ids=token_ids.view(batch, request.n, -1),
        lengths=lengths.view(batch, request.n),
        prompt_length=prompt_length,
        pad_token_id=pad_token_id,
        generation_config=generation_config,
        records=records,
    )


def check_context_length(model: PreTrainedModel, prompt_length: int) -> None:
    """Refuse a prompt that leaves no room for a single token in the model's context."""
    context = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if context is not None and prompt_length >= context:
        raise ValueError(
            f"The prompt is {prompt_length} tokens long and the model's context holds {context}: shorten the prompt to "
            f"at most {context - 1} tokens."
        )


def _prepare_model_kwargs(
    model: PreTrainedModel, generation_config: GenerationConfig, model_kwargs: dict[str, Any], batch: int
) -> dict[str, Any]:
    """The model's inputs, with a cache that is ours alone and has room for the last token to be fed back."""
    # These are generate's, not the model's
    model_kwargs = {k: v for k, v in model_kwargs.items() if k not in ("tokenizer", "assistant_tokenizer")}
    for name in CACHE_NAMES:
        cache = model_kwargs.get(name)
        if cache is None:
            continue
        if getattr(cache, "_is_user_defined", False):
            capacity = cache.get_max_length()
            if isinstance(cache, StaticCache) and capacity < generation_config.max_length:
                raise ValueError(
                    f"The static cache holds {capacity} tokens and best_of_n needs {generation_config.max_length}: "
                    "prompt and completion, the last token included. Make it larger."
                )
            # Its rows are going to multiply and leave, and the user may want it for the next call
            model_kwargs[name] = copy_cache(cache)
        elif isinstance(cache, StaticCache):
            model_kwargs[name] = model._prepare_static_cache(
                cache_implementation=generation_config.cache_implementation,
                batch_size=batch,
                max_cache_len=generation_config.max_length,
                prefill_chunk_size=generation_config.prefill_chunk_size,
                model_kwargs=model_kwargs,
            )
    return model_kwargs


def _pad_token_id(generation_config: GenerationConfig, stopping_criteria: StoppingCriteriaList) -> int:
    pad_token = generation_config._pad_token_tensor
    if pad_token is not None:
        return int(pad_token)
    all_end_together = {criteria_module.MaxLengthCriteria, criteria_module.MaxTimeCriteria}
    if any(type(criterion) not in all_end_together for criterion in stopping_criteria):
        raise ValueError("Candidates may end at different lengths, so a padding token is needed: pass pad_token_id.")
    return 0


def _last_logits(outputs: Any, input_ids: torch.Tensor) -> torch.Tensor:
    # Copied, so that the logits of the whole prompt can be freed
    return outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=input_ids.device)
