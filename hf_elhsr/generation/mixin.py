"""BestOfNGenerationMixin: `generate` with `best_of_n` and `reward_head`."""

import copy
import functools
from collections.abc import Sequence
from typing import Any

import torch
from transformers.generation import BaseStreamer

from .._checks import true_or_false
from ..decisions.selection import Combination
from ..head.base_model import unwrap_language_model
from ..rewards import SignalProcessor, SignalProcessorList
from ..transformers_internals import DecodingLoop, LoopMixin, generate_with
from .arguments import (
    by_name,
    check_generation_mode,
    check_model,
    check_request,
    checked_processors,
    keep_when_saved,
    requested_cache,
    requested_sequences,
    restore_dropped,
    saved_settings,
    with_saved_settings,
)
from .loop import CandidateRequest, Candidates, sample_candidates
from .reward_sources import AnswerExtractor, Combining, RewardSource, RewardSources, best_of_n_output
from .stopping import STOPPING_RULES, Stopping, stopping_for, winner_confidence


class BestOfNGenerationMixin(LoopMixin):
    """Adds best-of-n to a transformers model class; put it before the model class among the bases.

    [`enable_best_of_n`] does that for an existing model. Without `best_of_n`, every method is transformers' own.
    """

    @with_saved_settings
    @torch.no_grad()
    def generate(
        self: Any,
        *args: Any,
        best_of_n: int | None = None,
        reward_head: "RewardSource | Sequence[RewardSource] | None" = None,
        combine: str | Combination | None = None,
        extract_answer: AnswerExtractor | None = None,
        signal_processor: list[SignalProcessor] | None = None,
        output_token_rewards: bool = False,
        prune: float | None = None,
        adaptive: float | None = None,
        min_confidence: float | None = None,
        max_parallel: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """transformers' `generate`, and with `best_of_n` the best of n sampled candidates for every prompt.

        All other arguments are those of [`~transformers.GenerationMixin.generate`] and keep their meaning.
        `best_of_n` > 1 turns sampling on unless `do_sample` is set. `num_return_sequences=k` returns the k best. A
        streamer receives the best candidate once it is known, and one that is a [`SignalProcessor`], as
        [`CandidateStreamer`] is, also sees every step. A cache passed as `past_key_values` is read, not changed, and
        `past_key_values` is not returned. Arguments that the call leaves out are taken from the generation config
        passed to it and then from the model's, `generation_config.best_of_n` included, if they are text or numbers.

        Args:
            best_of_n: How many candidates to sample for every prompt. Default: plain `generate`.
            reward_head: What selects the winner: an [`ElhsrRewardHead`], a folder, or a repository on the Hub,
                "org/name" or "org/name@revision". Or a [`TextRewardModel`] or any function of prompts and completions
                that returns a score for each. Or a list of these, with `combine`.
            combine: How several sources decide: "worse_of_ranks" (the highest of every candidate's worst rank),
                "min_max" (the sum of rewards scaled to 0 .. 1 within the prompt), a [`LearnedCombination`], or any
                function from (batch, n, sources) to (batch, n). Or how one source votes: "majority_vote" (each
                candidate one vote for its answer) or "weighted_vote" (sigmoid(R) votes), with `extract_answer`. Among
                equal candidates, the one that the first source prefers wins.
            extract_answer: For votes: returns the final answer in a completion's text, or None if there is none.
            signal_processor: Further [`SignalProcessor`]s that see every step.
            output_token_rewards: With `return_dict_in_generate=True`, also return every r_t and g_t.
            prune: Tolerance: stop candidates early that are almost certain to lose, giving up about this share of
                prompts in accuracy, e.g. 0.01. It is fitted on held-out prompts, not guaranteed. The head must have
                been fitted for it (`config.pruning`), and its card says what was measured.
            adaptive: Tolerance: sample in waves, prune within them, and stop once a candidate is trusted, giving up
                about this share of prompts in accuracy (`config.adaptive`). It saves tokens, but consecutive waves take
                longer. Not together with `prune`.
            min_confidence: If P(correct) of the winner is below this, `abstained` is true.
            max_parallel: Decode at most this many candidates at a time, to bound memory. It draws different samples
                from the same distribution.

        Returns:
            (batch * k, length) long: the winners, best first, as `generate` returns sequences; or a
            [`BestOfNOutput`] with `return_dict_in_generate=True`.

        Raises:
            ValueError: The call cannot work, with the reason: a head for a different model, beam search, assisted
                decoding, `do_sample=False` with n > 1, encoder-decoder models, paged caches, n < 1, k > n, and more.
        """
        if best_of_n is None:
            return super().generate(*args, **kwargs)  # type: ignore[misc]

        if reward_head is None:
            raise ValueError(
                "best_of_n needs a reward_head to select the winner: pass an ElhsrRewardHead, a folder or 'org/name'."
            )
        kwargs = by_name(args, kwargs)
        check_request(self, best_of_n, kwargs)
        k = requested_sequences(self, best_of_n, kwargs)
        output_token_rewards = true_or_false("output_token_rewards", output_token_rewards)
        followers = _followers(signal_processor, kwargs.get("streamer"))
        sources = RewardSources.of(reward_head, self, keep_tokens=output_token_rewards)
        combining = Combining(sources, combine, extract_answer, kwargs.get("tokenizer"), kwargs.get("attention_mask"))
        head = sources.only_head if combine is None else None
        tolerances = {"prune": prune, "adaptive": adaptive}
        tolerances |= {name: kwargs.pop(name) for name in STOPPING_RULES if name in kwargs}
        alone = tolerances | {"min_confidence": min_confidence}
        asked = [name for name, value in alone.items() if value is not None]
        if asked and head is None:
            raise ValueError(
                f"{' and '.join(asked)} can only be used with a head that decides alone: leave it out, or pass one "
                "head and no combine."
            )
        if output_token_rewards and sources.only_head is None:
            raise ValueError(
                "output_token_rewards=True needs a single head, whose r_t and g_t it returns: leave it out."
            )
        stopping, calibration = Stopping(), None
        if head is not None:
            stopping = stopping_for(head, best_of_n, k, tolerances)
            calibration = winner_confidence(head.head, min_confidence)
        request = CandidateRequest(
            best_of_n,
            SignalProcessorList([*sources.running, *followers]),
            max_parallel=max_parallel,
            pruners=stopping.pruners,
            waves=stopping.waves,
        )
        candidates = _run(self, request, kwargs)
        output: Any = best_of_n_output(candidates, combining, k, calibration, min_confidence)
        if kwargs.get("streamer") is not None:
            _stream(kwargs["streamer"], candidates, output.winners[:, 0])
        return output if candidates.generation_config.return_dict_in_generate else output.sequences

    @torch.no_grad()
    def sample_candidates(
        self: Any,
        *args: Any,
        n: int,
        signal_processor: list[SignalProcessor] | None = None,
        max_parallel: int | None = None,
        **kwargs: Any,
    ) -> Candidates:
        """Sample n candidates for every prompt without selecting a winner, to make rollouts for training.

        Args:
            n: Candidates per prompt.
            signal_processor: Processors that see every step, to record or score.
            max_parallel: As in [`generate`].
            *args, **kwargs: Other arguments of `generate`.

        Returns:
            The token ids (batch, n, length) and lengths (batch, n) of all candidates.

        Raises:
            ValueError: `generate(best_of_n=n)` would refuse it, or a streamer is given, but there is no winner to
                stream.
        """
        kwargs = by_name(args, kwargs)
        check_request(self, n, kwargs)
        if kwargs.get("streamer") is not None:
            raise ValueError("sample_candidates selects no winner, so there is nothing to stream: leave out streamer.")
        processors = SignalProcessorList(checked_processors(signal_processor))
        return _run(self, CandidateRequest(n, processors, max_parallel=max_parallel), kwargs)

    def save_pretrained(self: Any, *args: Any, **kwargs: Any) -> None:
        """transformers' `save_pretrained`, which also keeps `best_of_n` in the generation config when reloaded."""
        keep_when_saved(self.generation_config, _SAVED_SETTINGS)
        super().save_pretrained(*args, **kwargs)  # type: ignore[misc]


_SAVED_SETTINGS = saved_settings(BestOfNGenerationMixin.generate)


def _followers(signal_processor: list[SignalProcessor] | None, streamer: Any) -> list[SignalProcessor]:
    """The processors, and the streamer among them if it follows all candidates."""
    processors = checked_processors(signal_processor)
    follows = isinstance(streamer, SignalProcessor) and not any(streamer is processor for processor in processors)
    return [*processors, streamer] if follows else processors


def _run(model: Any, request: CandidateRequest, kwargs: dict[str, Any]) -> Candidates:
    """Run transformers' own preparation of inputs, caches, processors and criteria, and then best-of-n's loop."""
    settings: dict[str, Any] = {"num_return_sequences": 1}
    if request.n > 1:
        settings["do_sample"] = True
    if (use_cache := requested_cache(model, kwargs)) is not None:
        settings["use_cache"] = use_cache
    kwargs = {name: value for name, value in kwargs.items() if name not in settings}
    generation_config = kwargs.pop("generation_config", None)
    if generation_config is not None:
        # generate warns about settings passed along with a generation_config, so they go into a copy of it
        generation_config = copy.deepcopy(generation_config)
        generation_config.update(**settings)
        settings = {"generation_config": generation_config}
    loop = DecodingLoop(functools.partial(sample_candidates, request=request), check_generation_mode)
    return generate_with(loop, model, **kwargs, **settings)


def _stream(streamer: BaseStreamer, candidates: Candidates, best: torch.Tensor) -> None:
    """Stream the best candidate of every prompt, token by token; `generate` has already put the prompt."""
    rows = torch.arange(len(best), device=best.device)
    length = int(candidates.lengths[rows, best].max())
    for tokens in candidates.token_ids[rows, best, candidates.prompt_length : candidates.prompt_length + length].T:
        streamer.put(tokens.cpu())
    streamer.end()


def enable_best_of_n(model: Any) -> Any:
    """Let `model.generate` take `best_of_n` and `reward_head`.

    The model's class is replaced by one with [`BestOfNGenerationMixin`] in front, of the same name, so that saved
    configurations, pickles and copies are those of the original class. Nothing else about the model changes. In a PEFT
    or `torch.compile` wrapper, the model inside is enabled. Calling it again does nothing. Settings of best-of-n in the
    model's generation_config.json apply from then on.

    A model that has returned hidden states, with or without best-of-n, can no longer be pickled: transformers keeps
    capture hooks on it that pickle refuses. `save_pretrained` and `copy.deepcopy` still work.

    Returns:
        The same object that was passed in.

    Raises:
        ValueError: Best-of-n cannot decode the model, with the reason.
    """
    language_model: Any = unwrap_language_model(model)
    check_model(language_model)
    if not isinstance(language_model, BestOfNGenerationMixin):
        original: Any = type(language_model)
        language_model.__class__ = _best_of_n_class(original)
        restore_dropped(language_model, _SAVED_SETTINGS)
    return model


def disable_best_of_n(model: Any) -> Any:
    """Undo [`enable_best_of_n`]: the model gets its own class back. Returns the same object."""
    language_model = unwrap_language_model(model)
    original = vars(type(language_model)).get("_original_class")
    if original is not None:
        language_model.__class__ = original
    return model


def best_of_n_view(model: Any) -> Any:
    """The same model viewed through a class that has the mixin; the model passed in keeps its own class.

    The two share their attributes: what is set on one is set on the other. So nothing is loaded or copied, and other
    threads that use the model are not affected.

    Raises:
        ValueError: Best-of-n cannot decode the model, with the reason.
    """
    check_model(model)
    original: Any = type(model)
    cls = _best_of_n_class(original)
    view = cls.__new__(cls)
    object.__setattr__(view, "__dict__", vars(model))
    return view


@functools.cache
def _best_of_n_class(original: Any) -> Any:
    def reduce(self: Any, protocol: Any) -> tuple[Any, ...]:
        # This class cannot be imported by its name, but the original can: pickles and copies refer to the original
        return _empty_instance, (original,), self.__getstate__()

    return type(
        original.__name__,
        (BestOfNGenerationMixin, original),
        {
            "__module__": original.__module__,
            "__qualname__": original.__qualname__,
            "__doc__": original.__doc__,
            "__reduce_ex__": reduce,
            "_original_class": original,
        },
    )


def _empty_instance(original: Any) -> Any:
    cls = _best_of_n_class(original)
    return cls.__new__(cls)
