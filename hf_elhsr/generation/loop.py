"""The decoding loop: it samples n candidates for every prompt, in waves or all at once, and lets pruners stop them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MaxLengthCriteria,
    MaxTimeCriteria,
    PreTrainedModel,
    StaticCache,
    StoppingCriteriaList,
)

from .._checks import whole_number
from ..head.signals import read_step
from ..rewards import SignalProcessorList
from ..transformers_internals import (
    MEDIA_INPUTS,
    is_compiled,
    is_passed_by_user,
    larger_static_cache,
    optimized_for_decoding,
    pad_token_id,
    prefill,
    updated_model_kwargs,
)
from .arguments import check_context_length, check_padding
from .batch import CACHE_NAMES, Prompts, Rows, copy_cache, inputs_of_last_token, last_logits, stateful
from .cache_check import check_cache
from .next_token import sample_tokens
from .output import StepRecords
from .packed_linear import packed_linears
from .shared_prompt import CannotShareError, SharedPromptCache


class Pruner(Protocol):
    """Decides which candidates stop early."""

    def __call__(
        self, candidates: torch.Tensor, unfinished: torch.Tensor, lengths: torch.Tensor, pruned: torch.Tensor
    ) -> torch.Tensor:
        """Return (rows,) bool, true for rows to stop; only unfinished ones may be.

        Args:
            candidates: (rows,) long, which candidate a row is.
            unfinished: (rows,) bool, false for rows that have ended.
            lengths, pruned: (all candidates,) long and bool: sampled tokens so far, and which are already stopped.
        """


class Waves(Protocol):
    """Decides how many candidates start together, and which prompts need more."""

    def wave_sizes(self) -> list[int]:
        """Return how many candidates of a prompt each wave has; they add up to n."""

    def wanting(self, lengths: torch.Tensor, pruned: torch.Tensor) -> torch.Tensor:
        """Return (batch,) bool, true for prompts that need another wave; the arguments are those of [`Pruner`]."""


@dataclass(frozen=True)
class CandidateRequest:
    """What the mixin asks the loop for: n candidates per prompt, followed by these processors.

    Args:
        max_parallel: At most this many candidates are in the batch at a time.
        pruners: They are asked after every step which candidates to stop.
        waves: How many candidates start together. Default: all n candidates of a prompt.
    """

    n: int
    processors: SignalProcessorList
    max_parallel: int | None = None
    pruners: tuple[Pruner, ...] = ()
    waves: Waves | None = None

    def __post_init__(self) -> None:
        if self.max_parallel is not None:
            whole_number("max_parallel", self.max_parallel)

    def check_rows_may_leave(self, compiled: bool, stateful: list[str]) -> None:
        """Refuse options that need rows to leave the batch if they cannot.

        Args:
            compiled: The decoding step is compiled, for a batch that keeps its size.
            stateful: Names of logits processors and stopping criteria that may keep state per row.
        """
        names = self._asked("prune", "adaptive", "max_parallel")
        if names and stateful:
            raise ValueError(
                f"{names} needs rows that can leave the batch, but {', '.join(stateful)} may keep state per row: leave "
                "out one of them."
            )
        if names and compiled:
            raise ValueError(
                f"{names} needs rows that can leave the batch, but decoding is compiled for a batch of constant size: "
                "use a different cache_implementation, or set disable_compile=True."
            )

    def check_time(self) -> None:
        """Refuse max_time if candidates start after one another: the last would be cut at their first tokens."""
        if names := self._asked("adaptive", "max_parallel"):
            raise ValueError(
                f"With {names} candidates start after one another, and max_time would cut the last at their first "
                "tokens: leave out one of them."
            )

    def _asked(self, *names: str) -> str:
        given = {"prune": self.pruners, "adaptive": self.waves, "max_parallel": self.max_parallel}
        return " and ".join(name for name in names if given[name])


# The time to move a row of the cache as a share of the time that an idle row adds to a step, roughly, on a CPU. It
# affects the loop's speed, never its results
_MOVE_TO_STEP = 0.25


@dataclass
class Candidates:
    """The sampled candidates, as the loop returns them.

    Args:
        token_ids: (batch, n, length) long, prompt included, padded on the right.
        lengths: (batch, n) long, sampled tokens of every candidate, the EOS included; 0 if it was never sampled.
        pruned: (batch, n) bool, true if a candidate was stopped before its end.
        prompt_length: How many of the positions are the (left-padded) prompt.
        generation_config: The config in force, with defaults filled in.
        records: Scores, logits, hidden states and attentions, if they were asked for.
    """

    token_ids: torch.Tensor
    lengths: torch.Tensor
    pruned: torch.Tensor
    prompt_length: int
    generation_config: GenerationConfig
    records: StepRecords = field(default_factory=StepRecords)

    def completion(self, prompt: int, candidate: int) -> torch.Tensor:
        """(tokens,) long: the sampled tokens, the EOS included, without prompt and padding."""
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
        ValueError: Best-of-n cannot work with this model and these arguments; raised before anything is sampled.
    """
    batch, prompt_length = input_ids.shape
    loop = _Loop(model, stopping_criteria, generation_config, request, batch, input_ids.device)
    prompts = loop.prefill(input_ids, logits_processor, model_kwargs)
    with optimized_for_decoding(model), packed_linears(model):
        for wave in loop.waves():
            parts = [wave] if request.max_parallel is None else wave.split(request.max_parallel)
            for part in parts:
                loop.decode(prompts, part)
    return Candidates(
        token_ids=loop.padded_token_ids(input_ids),
        lengths=loop.lengths.view(batch, request.n),
        pruned=loop.pruned.view(batch, request.n),
        prompt_length=prompt_length,
        generation_config=generation_config,
        records=loop.records,
    )


class _Loop:
    """The decoding of all candidates of one call, some rows at a time."""

    def __init__(
        self,
        model: PreTrainedModel,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        request: CandidateRequest,
        batch: int,
        device: torch.device,
    ):
        self._model = model
        self._stopping_criteria = stopping_criteria
        self._generation_config = generation_config
        self._request = request
        self._pad_token_id = _pad_token_id(generation_config, stopping_criteria)
        self._needs = request.processors.needs
        candidates = batch * request.n
        self.lengths = torch.zeros(candidates, dtype=torch.long, device=device)
        self.pruned = torch.zeros(candidates, dtype=torch.bool, device=device)
        self._token_ids: dict[int, torch.Tensor] = {}
        self.records = StepRecords.asked_for(generation_config)

    def prefill(
        self, input_ids: torch.Tensor, logits_processor: LogitsProcessorList, model_kwargs: dict[str, Any]
    ) -> Prompts:
        """Run the prompts through the model, once each."""
        model, request, batch = self._model, self._request, len(input_ids)
        embeds = model_kwargs.get("inputs_embeds")
        prompt_length = (input_ids if embeds is None else embeds).shape[1]
        # max_length counts input_ids, which do not contain a prompt given as embeddings
        new_tokens = self._generation_config.max_length - input_ids.shape[1]
        check_context_length(model, prompt_length, new_tokens, feeds_last=bool(self._needs.layers))
        check_padding(model_kwargs.get("attention_mask"))
        positions = prompt_length + new_tokens
        model_kwargs = _prepare_model_kwargs(model, self._generation_config, model_kwargs, batch, positions)
        self._compiled = is_compiled(model, self._generation_config, model_kwargs)
        keeping_state = stateful(logits_processor, self._stopping_criteria)
        request.check_rows_may_leave(self._compiled, keeping_state)
        if any(type(criterion) is MaxTimeCriteria for criterion in self._stopping_criteria):
            request.check_time()
        # Rows that leave change the shapes, and a compiled step would have to be compiled again
        self._may_leave = not self._compiled and not keeping_state
        outputs = prefill(model, input_ids, self._generation_config, model_kwargs)
        model_kwargs = _first_positions(updated_model_kwargs(model, outputs, model_kwargs))
        logits = last_logits(outputs, input_ids)
        check_cache(model, input_ids, logits, model_kwargs, room=positions - prompt_length)
        self.records.prefill(outputs, batch, request.n, input_ids.device)
        # The prefill has read them, and images would be multiplied with the rows
        for name in ("inputs_embeds", *MEDIA_INPUTS):
            model_kwargs.pop(name, None)

        request.processors.begin(batch, input_ids.device)
        request.processors.candidates_multiplied(torch.arange(len(self.lengths), device=input_ids.device) // request.n)
        if self._needs.layers and not model_kwargs.get("output_hidden_states"):
            model_kwargs["output_hidden_states"] = sorted(self._needs.layers)
        return Prompts(input_ids, logits, model_kwargs, logits_processor)

    def waves(self) -> Iterator[torch.Tensor]:
        """The candidates, (rows,) long and ascending, that start together."""
        n, waves = self._request.n, self._request.waves
        candidates = torch.arange(len(self.lengths), device=self.lengths.device)
        start = 0
        for size in [n] if waves is None else waves.wave_sizes():
            yield candidates[(candidates % n >= start) & (candidates % n < start + size)]
            start += size

    def decode(self, prompts: Prompts, candidates: torch.Tensor) -> None:
        """Sample these candidates, (rows,) long, to their ends; those of prompts that need no more are left out."""
        processors, needs, records = self._request.processors, self._needs, self.records
        do_sample = self._generation_config.do_sample
        if self._request.waves is not None:
            wanting = self._request.waves.wanting(self.lengths, self.pruned)
            candidates = candidates[wanting[candidates // self._request.n]]
        if not len(candidates):
            return
        rows = self._start(prompts, candidates)
        records.start_wave()
        resting = idle_steps = 0
        while True:
            # Processors may work in place, and the raw logits are a signal
            logits = rows.logits.clone() if needs.logits or records.keep("logits") else rows.logits
            tokens, scores = sample_tokens(
                rows.logits_processor, rows.input_ids, logits, do_sample, keep_scores=records.keep("scores")
            )
            records.step(rows.candidates, scores=scores, logits=rows.logits)
            tokens = tokens.masked_fill(~rows.unfinished, self._pad_token_id)
            rows.input_ids = torch.cat([rows.input_ids, tokens[:, None]], dim=-1)
            self.lengths[rows.candidates] += rows.unfinished
            active = rows.unfinished
            rows.unfinished = active & ~self._stopping_criteria(rows.input_ids, records.history("scores"))

            # The last tokens are fed only for their hidden states
            outputs = self._feed(rows, prompts) if needs.layers or bool(rows.unfinished.any()) else None
            processors(rows.input_ids, read_step(outputs, rows.logits, rows.candidates, active, needs))
            for pruner in self._request.pruners:
                stopped = pruner(rows.candidates, rows.unfinished, self.lengths, self.pruned)
                self.pruned[rows.candidates[stopped]] = True
                rows.unfinished = rows.unfinished & ~stopped
            ended = active & ~rows.unfinished
            just_ended = int(ended.sum())
            if just_ended:
                processors.candidates_left(rows.candidates[ended])
            if not bool(rows.unfinished.any()):
                break
            records.forward(outputs, rows.candidates)
            resting += just_ended
            idle_steps += resting
            if self._may_leave and resting and idle_steps >= _MOVE_TO_STEP * len(rows.candidates):
                self._keep_token_ids(rows, ~rows.unfinished)
                rows = rows.keep_unfinished(outputs)
                resting = idle_steps = 0
            else:
                rows.logits = last_logits(outputs, rows.input_ids)
            del outputs
        self._keep_token_ids(rows, torch.ones_like(rows.unfinished))

    def _keep_token_ids(self, rows: Rows, which: torch.Tensor) -> None:
        self._token_ids |= zip(rows.candidates[which].tolist(), rows.input_ids[which], strict=True)

    def padded_token_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(batch, n, length) long: all candidates; the prompt alone where a candidate was never sampled."""
        n = self._request.n
        in_order = [
            self._token_ids.get(candidate, input_ids[candidate // n]) for candidate in range(len(input_ids) * n)
        ]
        padded = nn.utils.rnn.pad_sequence(in_order, batch_first=True, padding_value=self._pad_token_id)
        return padded.view(len(input_ids), n, -1)

    def _start(self, prompts: Prompts, candidates: torch.Tensor) -> Rows:
        return prompts.rows(self._model, candidates, self._request.n, last=len(candidates) == len(self.lengths))

    def _feed(self, rows: Rows, prompts: Prompts) -> Any:
        """Feed every row's last token to the model, whose inputs are then ready for the next."""
        model = self._model
        cache = rows.model_kwargs.get("past_key_values")
        if isinstance(cache, SharedPromptCache):
            first = cache.get_seq_length() == cache.prompt_length
            try:
                with cache.in_use(model):
                    return self._forward(rows)
            except CannotShareError:
                if not first:
                    raise
                # The prompts' cache is as the prefill left it: multiply its rows instead
                prompts.may_share = False
                rows.model_kwargs = self._start(prompts, rows.candidates).model_kwargs
        return self._forward(rows)

    def _forward(self, rows: Rows) -> Any:
        model = self._model
        inputs = inputs_of_last_token(model, rows.input_ids, rows.model_kwargs)
        forward = model.get_compiled_call(self._generation_config.compile_config) if self._compiled else model.__call__
        outputs = forward(**inputs, return_dict=True)
        rows.model_kwargs = updated_model_kwargs(model, outputs, rows.model_kwargs)
        return outputs


def _prepare_model_kwargs(
    model: PreTrainedModel,
    generation_config: GenerationConfig,
    model_kwargs: dict[str, Any],
    batch: int,
    positions: int,
) -> dict[str, Any]:
    """The model's inputs, with a cache that the caller does not share and that has room for the last token."""
    model_kwargs = dict(model_kwargs)
    for name in CACHE_NAMES:
        cache = model_kwargs.get(name)
        if cache is None:
            continue
        if is_passed_by_user(cache):
            # Only for static caches: a dynamic one without layers has no length yet
            if isinstance(cache, StaticCache) and (capacity := cache.get_max_length()) < positions:
                raise ValueError(
                    f"The static cache holds {capacity} tokens and best_of_n needs {positions}: "
                    "prompt and completion, the last token included. Make it larger."
                )
            # Its rows will multiply and leave, and the user may need it for the next call
            model_kwargs[name] = copy_cache(cache)
        elif isinstance(cache, StaticCache):
            model_kwargs[name] = larger_static_cache(model, generation_config, batch, positions, model_kwargs)
    return model_kwargs


def _first_positions(model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The inputs of the first sampled token, which is the first of all after a prompt of padding alone.

    transformers counts on from the padding, whose positions are 0.
    """
    mask, positions = model_kwargs.get("attention_mask"), model_kwargs.get("position_ids")
    if mask is None or positions is None or mask.ndim != 2 or positions.shape != mask.shape:
        return model_kwargs
    empty = ~mask[:, :-1].bool().any(dim=-1)
    if not bool(empty.any()):
        return model_kwargs
    positions = positions.clone()
    positions[empty, -1] = 0
    return model_kwargs | {"position_ids": positions}


def _pad_token_id(generation_config: GenerationConfig, stopping_criteria: StoppingCriteriaList) -> int:
    if (pad_token := pad_token_id(generation_config)) is not None:
        return pad_token
    all_end_together = {MaxLengthCriteria, MaxTimeCriteria}
    if any(type(criterion) not in all_end_together for criterion in stopping_criteria):
        raise ValueError("Candidates may end at different lengths, so a padding token is needed: pass pad_token_id.")
    return 0
