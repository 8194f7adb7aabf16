"""score_generation: rewards for what transformers' own `generate` samples, without best-of-n's decoding loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel, StaticCache, StoppingCriteriaList
from transformers.generation import GenerationMode

from ..head.base_model import unwrap_language_model
from ..head.modeling_elhsr import ElhsrRewardHead
from ..head.signals import read_step
from ..rewards.processor import SignalProcessor
from ..rewards.running_reward import RunningReward
from ..transformers_internals import is_watched, watch_generate
from .batch import CACHE_NAMES, copy_cache, inputs_of_last_token


class GenerationRewards:
    """What [`score_generation`] yields: the rewards of the latest `generate` call inside the context.

    Attributes:
        processor: The [`SignalProcessor`] that follows the decoding.
    """

    def __init__(self, model: PreTrainedModel, processor: SignalProcessor):
        self.processor = processor
        self._model = model
        self._pending: dict[str, Any] | None = None
        # Tensors, once a token has been sampled
        self._input_ids: Any = None
        self._active: Any = None
        self._unfinished: Any = None
        self._drawn_from: torch.Tensor | None = None
        self._scored_length = 0

    @property
    def rewards(self) -> torch.Tensor:
        """(rows,) float32 rewards of the latest call, in the order of the rows that `generate` returned."""
        if not isinstance(self.processor, RunningReward):
            raise ValueError("The processor keeps no rewards: read its own results instead.")
        if self._input_ids is None:
            raise ValueError("Nothing has been generated inside the score_generation context yet.")
        self.finish()
        return self.processor.rewards

    def begins(self, mode: GenerationMode) -> None:
        """Note that a call of `generate` begins; rewards of earlier calls are dropped."""
        if mode not in (GenerationMode.SAMPLE, GenerationMode.GREEDY_SEARCH):
            raise ValueError(f"score_generation follows sampling and greedy search, not {mode.value}, whose rows move.")
        self.finish()
        self._input_ids = self._pending = self._unfinished = None

    def criteria(self, criteria: StoppingCriteriaList) -> StoppingCriteriaList:
        """The loop's stopping criteria, which also report every token here."""
        return _WatchedCriteria(criteria, self)

    def cache_made(self, model_kwargs: dict[str, Any], length: int) -> None:
        """Refuse a static cache without room for the last token."""
        for name in CACHE_NAMES:
            cache = model_kwargs.get(name)
            if isinstance(cache, StaticCache) and cache.get_max_length() < length:
                raise ValueError(
                    f"The static cache holds {cache.get_max_length()} tokens and score_generation needs {length}: "
                    "prompt and completion, the last token included. Make it larger."
                )

    def sampled(self, input_ids: torch.Tensor, done: torch.Tensor) -> None:
        """Note that the loop has appended a token to every row, and which rows are done."""
        if self._unfinished is None:
            self.processor.begin(len(input_ids), input_ids.device)
            self._unfinished = torch.ones_like(done)
            self._scored_length = input_ids.shape[1] - 1
        self._input_ids = input_ids
        self._active = self._unfinished
        self._unfinished = self._unfinished & ~done

    def forwarded(self, outputs: Any, model_kwargs: dict[str, Any], tokens: int) -> None:
        """Take in the model's outputs; `model_kwargs` are ready for the next token."""
        if tokens != 1:
            raise ValueError("score_generation follows one token at a time, not assisted decoding.")
        if self.processor.needs.layers and not model_kwargs.get("output_hidden_states"):
            model_kwargs["output_hidden_states"] = sorted(self.processor.needs.layers)
        if self._input_ids is not None and self._input_ids.shape[1] > self._scored_length:
            self._take_in(outputs)
        # Cloned: the loop may warp the logits in place
        self._drawn_from = outputs.logits[:, -1].float().clone() if self.processor.needs.logits else None
        self._pending = model_kwargs

    def finish(self) -> None:
        """Feed the last token to the model, which the loop that sampled it did not do."""
        if self._pending is None or self._input_ids is None or self._input_ids.shape[1] == self._scored_length:
            return
        # The cache may be the user's, or be returned to the user: this token must not appear in it
        model_kwargs = {
            key: copy_cache(value) if key in CACHE_NAMES and value is not None else value
            for key, value in self._pending.items()
        }
        with torch.no_grad():
            inputs = inputs_of_last_token(self._model, self._input_ids, model_kwargs)
            self._take_in(self._model(**inputs, return_dict=True))
        self._pending = None

    def _take_in(self, outputs: Any) -> None:
        rows = torch.arange(len(self._input_ids), device=self._input_ids.device)
        signal = read_step(outputs, self._drawn_from, rows, self._active, self.processor.needs)
        self.processor(self._input_ids, signal)
        self._scored_length = self._input_ids.shape[1]


class _WatchedCriteria(StoppingCriteriaList):
    """The loop's own stopping criteria, which are called once per token and find which rows are done."""

    def __init__(self, criteria: StoppingCriteriaList, rewards: GenerationRewards):
        super().__init__(criteria)
        self._rewards = rewards

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        done = super().__call__(input_ids, scores, **kwargs)
        self._rewards.sampled(input_ids, done)
        return done


@contextmanager
def score_generation(model: PreTrainedModel, head: ElhsrRewardHead | SignalProcessor) -> Iterator[GenerationRewards]:
    """Score what `model.generate` samples inside the context, with transformers' own decoding loop.

        with score_generation(model, head) as scored:
            sequences = model.generate(**inputs, do_sample=True, num_return_sequences=4)
        scored.rewards      # (batch * 4,)

    It works with greedy decoding and sampling, and with a `custom_generate` callable that updates its arguments and
    calls its stopping criteria as these do. One more step is run at the end, for the last token's hidden state.

    Args:
        model: The language model; it may be wrapped by PEFT or `torch.compile`.
        head: A reward head, or any [`SignalProcessor`].

    Raises:
        ValueError: The head does not fit the model, or `generate` uses beam search or assisted decoding, whose rows
            change places.
    """
    language_model = unwrap_language_model(model)
    if isinstance(head, ElhsrRewardHead):
        head.config.check_fits(language_model)
        head = RunningReward(head)
    rewards = GenerationRewards(language_model, head)
    if is_watched(language_model):
        raise ValueError("This model is already inside a score_generation context: leave that context first.")
    with watch_generate(language_model, rewards):
        yield rewards
        rewards.finish()
