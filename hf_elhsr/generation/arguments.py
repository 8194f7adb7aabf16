"""The arguments of best-of-n: defaults saved in generation configs, and checks that refuse what cannot work."""

import functools
import inspect
import json
import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers import GenerationConfig
from transformers.generation import GenerationMixin, GenerationMode

from .._checks import quoted, true_or_false, whole_number
from ..head.base_model import learns_prompts
from ..rewards import SignalProcessor
from ..transformers_internals import (
    GENERATION_CONFIG_NAME,
    MEDIA_INPUTS,
    commit_hash,
    is_from_model_config,
    is_watched,
    keep_all_settings,
    own_decoding,
)
from .batch import CACHE_NAMES, uses_cache

# Arguments that hold functions and objects, which a generation config, being JSON, cannot hold
_FOR_CALLS_ALONE = ("extract_answer", "signal_processor")
# Without self and **kwargs
_POSITIONAL = tuple(inspect.signature(GenerationMixin.generate).parameters)[1:-1]


class _Saved(NamedTuple):
    value: Any
    source: str


def by_name(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of `generate`, all by name.

    Raises:
        TypeError: There are too many arguments, or one is given twice.
    """
    if len(args) > len(_POSITIONAL):
        raise TypeError(f"generate() takes at most {len(_POSITIONAL)} positional arguments, got {len(args)}.")
    named = dict(zip(_POSITIONAL, args, strict=False))
    if duplicates := named.keys() & kwargs.keys():
        raise TypeError(f"generate() got {sorted(duplicates)} both by position and by name.")
    return named | kwargs


def own_arguments(generate: Callable[..., Any]) -> dict[str, Any]:
    """The arguments that best-of-n adds to `generate`, its keyword-only ones, with their defaults."""
    parameters = inspect.signature(generate).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def saved_settings(generate: Callable[..., Any]) -> tuple[str, ...]:
    """Those of best-of-n's arguments that a generation config may hold."""
    return tuple(name for name in own_arguments(generate) if name not in _FOR_CALLS_ALONE)


def with_saved_settings(generate: Callable[..., Any]) -> Callable[..., Any]:
    """`generate`, with arguments that the call leaves out taken from the generation configs, if they set them.

    The call takes precedence, then a `generation_config` passed to it, then the model's; None means unset, as in
    transformers. Without a `best_of_n` in any of them, the configs are not read. Errors name the settings that come
    from a config, since the caller may not know them.

    Raises:
        ValueError: A config holds what cannot be saved: a head that is not given by name, or a function. Or the call
            has arguments of best-of-n without `best_of_n`.
    """
    defaults = own_arguments(generate)

    @functools.wraps(generate)
    def with_settings(model: Any, *args: Any, **kwargs: Any) -> Any:
        passed = dict(zip(_POSITIONAL, args, strict=False)) | kwargs
        saved = _saved(defaults, passed.get("generation_config"), model.generation_config)
        saved = {name: setting for name, setting in saved.items() if kwargs.get(name) is None}
        if kwargs.get("best_of_n") is None and "best_of_n" not in saved:
            unused = [name for name, value in kwargs.items() if name in defaults and _is_set(value, defaults[name])]
            if unused:
                raise ValueError(
                    f"{' and '.join(unused)} passed without best_of_n: also pass best_of_n, the number of candidates."
                )
            return generate(model, *args, **kwargs)
        try:
            _check(saved)
            return generate(model, *args, **kwargs | {name: setting.value for name, setting in saved.items()})
        except ValueError as error:
            for name, setting in saved.items():
                error.add_note(f"{name}={quoted(setting.value)} comes from {setting.source}.")
            raise

    return with_settings


def _is_set(value: Any, default: Any) -> bool:
    # By identity: comparisons of arrays are arrays
    return value is not None and value is not default


def _saved(names: Iterable[str], passed: GenerationConfig | None, own: GenerationConfig | None) -> dict[str, _Saved]:
    saved = {}
    for source, config in (("the model's generation_config", own), ("the generation_config passed", passed)):
        for name in names:
            if (value := getattr(config, name, None)) is not None:
                saved[name] = _Saved(value, source)
    return saved


def _check(saved: dict[str, _Saved]) -> None:
    for name in _FOR_CALLS_ALONE:
        if name in saved:
            raise ValueError(f"{name} in {saved[name].source} cannot be saved: pass it to generate instead.")
    if "reward_head" in saved:
        head, source = saved["reward_head"]
        if not all(isinstance(name, str) for name in (head if isinstance(head, list | tuple) else [head])):
            raise ValueError(
                f"reward_head in {source} must be a string, a folder or 'org/name', so that it can be saved; got "
                f"{type(head).__name__}. Pass the head itself to generate."
            )


def keep_when_saved(config: GenerationConfig | None, settings: Iterable[str]) -> None:
    """Make a generation config that transformers derived from the model's config keep best-of-n's settings.

    When it loads such a config, transformers drops settings that it does not know.
    """
    if config is not None and any(getattr(config, name, None) is not None for name in settings):
        keep_all_settings(config)


def restore_dropped(model: Any, settings: Sequence[str]) -> None:
    """Restore settings of best-of-n that transformers dropped when it loaded the model's generation_config.json.

    It drops them if the file says that it was derived from the model's config: the model was saved without being
    enabled, so that [`keep_when_saved`] was not called.
    """
    config = model.generation_config
    if config is None or not is_from_model_config(config):
        return
    path = _generation_config_file(model.config.name_or_path, commit_hash(model.config))
    if path is None:
        return
    written = json.loads(path.read_text(encoding="utf-8"))
    for name in settings:
        if written.get(name) is not None and getattr(config, name, None) is None:
            setattr(config, name, written[name])
    keep_when_saved(config, settings)


def _generation_config_file(source: str, revision: str | None) -> Path | None:
    """The file in a folder, or in the cache of a repository; None if it does not exist."""
    if not source:
        return None
    if Path(source).is_dir():
        path = Path(source) / GENERATION_CONFIG_NAME
        return path if path.is_file() else None
    try:
        cached = try_to_load_from_cache(source, GENERATION_CONFIG_NAME, revision=revision)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


# By name, since published heads carry copies of them
_OUR_CLASSES = ("BestOfNGenerationMixin", "LoopMixin")
# More do not fit into memory, whatever the model
_MOST_CANDIDATES = 2**20


def check_model(model: Any) -> None:
    """Refuse a model that best-of-n can never decode.

    Raises:
        ValueError: No `generate`, an encoder-decoder model, or a decoding loop of the model's own.
    """
    name = type(model).__name__
    if not isinstance(model, GenerationMixin):
        raise ValueError(f"{name} cannot generate: best_of_n needs a causal language model, e.g. AutoModelForCausalLM.")
    if model.config.is_encoder_decoder:
        raise ValueError(f"{name} is an encoder-decoder model; best_of_n decodes decoder-only language models.")
    if "generate" in vars(model):
        raise ValueError(
            f"This {name} has a custom generate (loaded with trust_remote_code), which best_of_n would not run: load "
            "the model without it."
        )
    if (own := own_decoding(type(model), _OUR_CLASSES)) is not None:
        method, owner = own
        raise ValueError(f"{name} has its own {method} (from {owner.__name__}), which best_of_n cannot replace.")


def check_request(model: Any, n: int, kwargs: dict[str, Any]) -> None:
    """Refuse arguments that cannot work.

    Settings are looked up in the call, its generation_config and the model's, in this order and before transformers
    fills in defaults, so that the user's settings can be distinguished from defaults.
    """
    whole_number("best_of_n", n, at_most=_MOST_CANDIDATES)
    check_model(model)
    config = kwargs.get("generation_config")
    if config is not None and not isinstance(config, GenerationConfig):
        raise ValueError(f"generation_config={quoted(config)}: expected a GenerationConfig.")
    if kwargs.get("custom_generate") is not None:
        raise ValueError("custom_generate brings its own decoding loop, so best_of_n cannot run: pass one of the two.")
    if _setting(model, kwargs, "cache_implementation") == "paged":
        raise ValueError("best_of_n cannot use the paged cache, whose rows cannot be multiplied: leave it out.")
    if _setting(model, kwargs, "penalty_alpha") is not None or _setting(model, kwargs, "dola_layers") is not None:
        raise ValueError(
            "best_of_n samples: penalty_alpha (contrastive search) and dola_layers cannot be combined with it."
        )
    if n > 1 and _setting(model, kwargs, "do_sample") is False:
        raise ValueError(
            f"do_sample=False makes all {n} candidates the same: leave it out or set do_sample=True with best_of_n > 1."
        )
    _check_prompts(kwargs)
    if model.training and model.is_activation_checkpointing and uses_cache(requested_cache(model, kwargs)):
        raise ValueError(
            "In training mode with gradient checkpointing the model ignores its cache and would not see the prompt: "
            "call model.eval(), or pass use_cache=False."
        )
    caches = [name for name in CACHE_NAMES if kwargs.get(name) is not None]
    if caches and not uses_cache(requested_cache(model, kwargs)):
        raise ValueError(
            f"{caches[0]} is a cache, and use_cache=False asks for none: leave out one of them, or the model would see "
            "tokens twice."
        )
    media = [name for name in MEDIA_INPUTS if kwargs.get(name) is not None]
    if media and not uses_cache(requested_cache(model, kwargs)):
        raise ValueError(
            f"Without a cache the model would need {', '.join(media)} in every step, for a changing set of candidates: "
            "leave out use_cache=False."
        )
    # PEFT's generate replaces this method of the wrapped model
    if learns_prompts(getattr(vars(model).get("prepare_inputs_for_generation"), "__self__", None)):
        raise ValueError(
            "best_of_n does not support adapters that learn prompts (prompt or prefix tuning): use an adapter of the "
            "weights, such as LoRA."
        )
    if is_watched(model):
        raise ValueError("best_of_n scores its own candidates: call it outside of score_generation.")


def _check_prompts(kwargs: dict[str, Any]) -> None:
    """Refuse a batch without prompts, and prompts without tokens."""
    # Token ids may be empty beside embeddings, which hold the prompt then
    name = next((name for name in ("inputs_embeds", "inputs", "input_ids") if kwargs.get(name) is not None), None)
    prompts = None if name is None else kwargs[name]
    if not isinstance(prompts, torch.Tensor):
        return
    shape = tuple(prompts.shape)
    if len(shape) != (dimensions := 3 if name == "inputs_embeds" else 2):
        wanted = "(batch, length, width)" if dimensions == 3 else "(batch, length)"
        raise ValueError(f"{name} has the shape {shape}: expected {wanted}, a row for each prompt.")
    if shape[0] == 0:
        raise ValueError(f"The batch of prompts is empty ({name} has the shape {shape}): pass at least one prompt.")
    if shape[1] == 0:
        raise ValueError(
            f"The prompts are empty ({name} has the shape {shape}), as an empty question is: no row has a token to go "
            "on from. Pass at least one, such as the tokenizer's BOS or EOS token."
        )


def requested_sequences(model: Any, n: int, kwargs: dict[str, Any]) -> int:
    """How many sequences to return per prompt: `num_return_sequences`, at most n."""
    k = _setting(model, kwargs, "num_return_sequences")
    if k is None:
        return 1
    if whole_number("num_return_sequences", k) > n:
        raise ValueError(f"num_return_sequences={k} is more than the best_of_n={n} candidates: raise best_of_n.")
    return int(k)


# What the decoding loop calls and reads. By name, since published heads carry copies of the class
_PROCESSOR = ("needs", "begin", "__call__", "candidates_multiplied", "candidates_left")


def checked_processors(signal_processor: Any) -> list[SignalProcessor]:
    """The processors that were passed, as a list.

    Raises:
        ValueError: It is not a list, or holds something else than a [`SignalProcessor`].
    """
    if signal_processor is None:
        return []
    if not isinstance(signal_processor, list | tuple):
        raise ValueError(f"signal_processor={quoted(signal_processor)}: expected a list of SignalProcessors.")
    for processor in signal_processor:
        if isinstance(processor, type) or not all(hasattr(processor, name) for name in _PROCESSOR):
            raise ValueError(f"signal_processor holds {quoted(processor)}: expected only SignalProcessors.")
    return list(signal_processor)


def check_context_length(model: Any, prompt_length: int, new_tokens: int, feeds_last: bool) -> None:
    """Refuse a prompt and a length limit for which the model has too few positions.

    Where positions are computed, as rotary ones are, a model goes on past its context, as in transformers. Where they
    are looked up, it would fail at the end of the decoding.

    Args:
        new_tokens: How many tokens may be sampled.
        feeds_last: Whether the last one is fed to the model, for its hidden states.
    """
    context = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if context is None:
        return
    if prompt_length >= context:
        raise ValueError(
            f"The prompt is {prompt_length} tokens long and the model's context holds {context}: shorten the prompt to "
            f"at most {context - 1} tokens."
        )
    positions = _looked_up_positions(model, context)
    most = positions - prompt_length + (not feeds_last)
    if new_tokens > most:
        last = ", and the last token is fed as well, for the hidden states that the head reads" if feeds_last else ""
        advice = f"pass max_new_tokens={most} or less" if most > 0 else f"shorten it to at most {positions - 1} tokens"
        raise ValueError(
            f"The prompt is {prompt_length} tokens long, up to {new_tokens} are to follow, and {type(model).__name__} "
            f"has {positions} positions{last}: {advice}."
        )


def check_padding(attention_mask: torch.Tensor | None) -> None:
    """Refuse prompts that are padded on the right: candidates would begin after padding.

    Args:
        attention_mask: (batch, length) of the prompts, or of another form, which is not looked at.
    """
    if attention_mask is None or attention_mask.ndim != 2:
        return
    present = attention_mask.bool()
    on_the_right = (~present[:, -1] & present.any(dim=-1)).nonzero()
    if len(on_the_right):
        raise ValueError(
            f"attention_mask has padding at the end of prompt {int(on_the_right[0])}, where candidates would "
            "begin: pad on the left, with tokenizer.padding_side = 'left'."
        )


# Tables of positions may have a few rows more than the context: OPT's has two
_FURTHER_ROWS = 8


def _looked_up_positions(model: Any, context: int) -> float:
    """How many positions a model has tables for: learned or sinusoidal embeddings, or masks; infinity without any."""
    tokens = model.get_input_embeddings()
    tables = [
        # RoBERTa's positions begin after the one of padding
        min(context, module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding)
        and module is not tokens
        and context <= module.num_embeddings <= context + _FURTHER_ROWS
    ]
    tables += [context for buffer in model.buffers() if buffer.ndim > 1 and context in buffer.shape]
    return min(tables, default=math.inf)


def check_min_confidence(min_confidence: float) -> None:
    """Refuse what is not a number in [0, 1]."""
    is_share = isinstance(min_confidence, Real) and not isinstance(min_confidence, bool)
    if not is_share or not 0 <= min_confidence <= 1:
        raise ValueError(f"min_confidence={quoted(min_confidence)}: expected a probability between 0 and 1.")


def check_generation_mode(
    mode: GenerationMode, generation_config: GenerationConfig, mode_kwargs: dict[str, Any]
) -> None:
    """Refuse decoding modes other than sampling; called by `generate` once all settings are known."""
    if mode not in (GenerationMode.SAMPLE, GenerationMode.GREEDY_SEARCH):
        raise ValueError(
            f"best_of_n samples its candidates and cannot be combined with {mode.value.replace('_', ' ')}: leave out "
            "num_beams, assistant_model, prompt_lookup_num_tokens and the like."
        )
    if not isinstance(generation_config.output_hidden_states, bool | None):
        raise ValueError(
            f"output_hidden_states={quoted(generation_config.output_hidden_states)} selects layers, which best_of_n "
            "does not support: pass True for all of them."
        )
    if mode_kwargs.get("synced_gpus"):
        raise ValueError(
            "best_of_n does not run with synced_gpus (FSDP or DeepSpeed ZeRO-3 over several processes): their forward "
            "passes must agree, and candidates end at different steps. Gather the model on one process."
        )


def requested_cache(model: Any, kwargs: dict[str, Any]) -> bool | None:
    """Whether the model is to keep a cache; None where nothing says so.

    Raises:
        ValueError: `use_cache` is neither true nor false.
    """
    value = _setting(model, kwargs, "use_cache")
    # Models compare it with False itself, which 0 and NumPy's booleans are not
    return None if value is None else true_or_false("use_cache", value)


def _setting(model: Any, kwargs: dict[str, Any], name: str) -> Any:
    sources = (kwargs.get(name), getattr(kwargs.get("generation_config"), name, None))
    return next((value for value in sources if value is not None), getattr(model.generation_config, name, None))
