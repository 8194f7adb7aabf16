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
from ..rewards.caches import CACHE_NAMES, copy_cache
from ..signals import read_step
from .records import StepRecords
from .rows import (
    check_cache,
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
        token_ids: (batch, n, length) long, prompt included, padded on the right.
        lengths: (batch, n) long, sampled tokens of every candidate, the EOS included.
        prompt_length: How many of the positions are the (left-padded) prompt.
        generation_config: The one in force, defaults filled in.
        records: Scores, logits, hidden states and attentions, as far as asked for.
    """

    token_ids: torch.Tensor
    lengths: torch.Tensor
    prompt_length: int
    generation_config: GenerationConfig
    records: StepRecords = field(default_factory=StepRecords)

    def completion(self, prompt: int, candidate: int) -> torch.Tensor:
        """(tokens,) long: what was sampled, the EOS included, nothing else."""
        end = self.prompt_length + int(self.lengths[prompt, candidate])
        return self.token_ids[prompt, candidate, self.prompt_length : end]


@dataclass
class _Rows:
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

    def keep_unfinished(self) -> "_Rows":
        """The rows that go on."""
        keep = self.unfinished.nonzero().squeeze(-1)
        return _Rows(
            input_ids=self.input_ids[keep],
            logits=self.logits[keep],
            candidates=self.candidates[keep],
            unfinished=self.unfinished[keep],
            model_kwargs=select_model_kwargs(self.model_kwargs, keep, rows=len(self.input_ids)),
            logits_processor=select_processor_rows(self.logits_processor, keep),
        )


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
    processors, needs = request.processors, request.processors.needs
    records = StepRecords.asked_for(generation_config)
    rows = _prefill(model, input_ids, logits_processor, generation_config, request, model_kwargs, records)

    compiled = model._valid_auto_compile_criteria(rows.model_kwargs, generation_config)
    forward = model.get_compiled_call(generation_config.compile_config) if compiled else model.__call__
    # Rows that leave change the shapes, for which a compiled step would be compiled anew
    may_leave = not compiled and rows_may_leave(rows.logits_processor, stopping_criteria)
    rows.logits_processor = with_partial_top_p(rows.logits_processor)
    keeps_logits = needs.logits or "logits" in records.wanted
    lengths = torch.zeros_like(rows.candidates)
    token_ids: dict[int, torch.Tensor] = {}

    with model._optimize_model_for_decode():
        while True:
            # Processors may work in place, and the raw logits are a signal
            scores = rows.logits_processor(rows.input_ids, rows.logits.clone() if keeps_logits else rows.logits)
            records.step(rows.candidates, scores=scores, logits=rows.logits)
            tokens = draw_tokens(scores) if generation_config.do_sample else scores.argmax(dim=-1)
            tokens = tokens.masked_fill(~rows.unfinished, pad_token_id)
            rows.input_ids = torch.cat([rows.input_ids, tokens[:, None]], dim=-1)
            lengths[rows.candidates] += rows.unfinished
            active = rows.unfinished
            rows.unfinished = active & ~stopping_criteria(rows.input_ids, records.history("scores"))
            is_last = not bool(rows.unfinished.any())

            # The last tokens are fed for their hidden states alone
            outputs = _feed(model, forward, rows) if needs.layers or not is_last else None
            processors(rows.input_ids, read_step(outputs, rows.logits, rows.candidates, active, needs))
            ended = active & ~rows.unfinished
            if bool(ended.any()):
                processors.candidates_left(rows.candidates[ended])
            if is_last:
                break
            rows.logits = _last_logits(outputs, rows.input_ids)
            records.forward(outputs, rows.candidates)
            del outputs
            if may_leave and bool(ended.any()):
                token_ids |= zip(rows.candidates[ended].tolist(), rows.input_ids[ended], strict=True)
                rows = rows.keep_unfinished()

    token_ids |= zip(rows.candidates.tolist(), rows.input_ids, strict=True)
    in_order = [token_ids[candidate] for candidate in range(batch * request.n)]
    padded = nn.utils.rnn.pad_sequence(in_order, batch_first=True, padding_value=pad_token_id)
    return Candidates(
        token_ids=padded.view(batch, request.n, -1),
        lengths=lengths.view(batch, request.n),
        prompt_length=prompt_length,
        generation_config=generation_config,
        records=records,
    )


def _prefill(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    generation_config: GenerationConfig,
    request: CandidateRequest,
    model_kwargs: dict[str, Any],
    records: StepRecords,
) -> _Rows:
    """Run the prompts through the model, once each, and multiply their rows by n."""
    batch, n = len(input_ids), request.n
    embeds = model_kwargs.get("inputs_embeds")
    prompt_length = (input_ids if embeds is None else embeds).shape[1]
    check_context_length(model, prompt_length)
    # max_length counts input_ids, which do not hold a prompt that is given as embeddings
    positions = generation_config.max_length + prompt_length - input_ids.shape[1]
    model_kwargs = _prepare_model_kwargs(model, generation_config, model_kwargs, batch, positions)
    outputs = model._prefill(input_ids, generation_config, model_kwargs, is_first_iteration=True)
    model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs, is_encoder_decoder=False)
    check_cache(model_kwargs, type(model).__name__)
    records.prefill(outputs, batch, n, input_ids.device)
    # They have been consumed
    model_kwargs.pop("inputs_embeds", None)

    prompt_of_row = torch.arange(batch, device=input_ids.device).repeat_interleave(n)
    request.processors.begin(batch, input_ids.device)
    request.processors.candidates_multiplied(prompt_of_row)
    layers = request.processors.needs.layers
    if layers and not model_kwargs.get("output_hidden_states"):
        model_kwargs["output_hidden_states"] = sorted(layers)
    return _Rows(
        input_ids=input_ids[prompt_of_row],
        logits=_last_logits(outputs, input_ids)[prompt_of_row],
        candidates=torch.arange(batch * n, device=input_ids.device),
        unfinished=torch.ones(batch * n, dtype=torch.bool, device=input_ids.device),
        model_kwargs=select_model_kwargs(model_kwargs, prompt_of_row, rows=batch),
        logits_processor=multiply_processors(logits_processor, batch, n),
    )


def _feed(model: PreTrainedModel, forward: Callable[..., Any], rows: _Rows) -> Any:
    """Feed every row's last token to the model, whose inputs are then ready for the next."""
    inputs = model.prepare_inputs_for_generation(
        rows.input_ids, next_sequence_length=1 if rows.model_kwargs["use_cache"] else None, **rows.model_kwargs
    )
    outputs = forward(**inputs, return_dict=True)
    rows.model_kwargs = model._update_model_kwargs_for_generation(outputs, rows.model_kwargs, is_encoder_decoder=False)
    return outputs


def check_context_length(model: PreTrainedModel, prompt_length: int) -> None:
    """Refuse a prompt that leaves no room for a single token in the model's context."""
    context = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if context is not None and prompt_length >= context:
        raise ValueError(
            f"The prompt is {prompt_length} tokens long and the model's context holds {context}: shorten the prompt to "
            f"at most {context - 1} tokens."
        )


def _prepare_model_kwargs(
    model: PreTrainedModel,
    generation_config: GenerationConfig,
    model_kwargs: dict[str, Any],
    batch: int,
    positions: int,
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
            if isinstance(cache, StaticCache) and capacity < positions:
                raise ValueError(
                    f"The static cache holds {capacity} tokens and best_of_n needs {positions}: "
                    "prompt and completion, the last token included. Make it larger."
                )
            # Its rows are going to multiply and leave, and the user may want it for the next call
            model_kwargs[name] = copy_cache(cache)
        elif isinstance(cache, StaticCache):
            model_kwargs[name] = model._prepare_static_cache(
                cache_implementation=generation_config.cache_implementation,
                batch_size=batch,
                max_cache_len=positions,
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
