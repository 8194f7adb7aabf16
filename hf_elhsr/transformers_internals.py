"""The private and undocumented names of transformers that this package uses; no other file may use one.

These names can change with every minor version of transformers. To support another version, adapt this file.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from transformers import (
    Cache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    StoppingCriteriaList,
    cache_utils,
    utils,
)
from transformers.generation import GenerationMode
from transformers.generation.utils import MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL

# Configurations of models

#: The fields that transformers declares, reads or writes in the configuration of any model.
COMMON_CONFIG_FIELDS = frozenset(field.name for field in dataclasses.fields(PreTrainedConfig)) | {
    "_commit_hash",
    "_name_or_path",
    "attn_implementation",
    "auto_map",
    "model_type",
    "name_or_path",
    "output_attentions",
    "torch_dtype",
}

#: The field of a configuration, as `to_dict` has it, that says where it was loaded from.
LOADED_FROM = "_name_or_path"


def commit_hash(config: PreTrainedConfig) -> str | None:
    """The commit of the Hub's repository that a model was loaded from; None for a folder."""
    return getattr(config, "_commit_hash", None)


def commit_of_file(file: str) -> str | None:
    """The commit that a file in the Hub's cache belongs to; None for a file elsewhere."""
    return utils.extract_commit_hash(file, None)


# Caches and attention

#: What the layers of a [`~transformers.Cache`] derive from, and the layer that grows with the sequence.
CacheLayerMixin = cache_utils.CacheLayerMixin
DynamicLayer = cache_utils.DynamicLayer


def attention_name(config: PreTrainedConfig) -> str:
    """The attention that a model computes, such as "sdpa"."""
    return config._attn_implementation


def supports_attention_interface(model: PreTrainedModel) -> bool:
    """Whether the model finds its attention through [`~transformers.AttentionInterface`]."""
    return bool(model._supports_attention_backend)


# Generation configs

#: The file that a generation config is saved to.
GENERATION_CONFIG_NAME: str = utils.GENERATION_CONFIG_NAME


def pad_token_id(generation_config: GenerationConfig) -> int | None:
    """The padding token that `generate` uses: the config's own, or an EOS token; None without either."""
    token = generation_config._pad_token_tensor
    return None if token is None else int(token)


def is_from_model_config(generation_config: GenerationConfig) -> bool:
    """Whether transformers derived it from the model's config; unknown settings are then dropped in loading."""
    return bool(getattr(generation_config, "_from_model_config", False))


def keep_all_settings(generation_config: GenerationConfig) -> None:
    """Mark it as not derived from the model's config, so that no setting is dropped in loading."""
    generation_config._from_model_config = False


# Steps of `generate`

#: Images and other media among a model's inputs, which only the prefill reads.
MEDIA_INPUTS: tuple[str, ...] = tuple(MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL)


def prefill(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    generation_config: GenerationConfig,
    model_kwargs: dict[str, Any],
) -> Any:
    """Run prompts through the model, in chunks if the generation config says so."""
    return model._prefill(input_ids, generation_config, model_kwargs, is_first_iteration=True)


def updated_model_kwargs(model: PreTrainedModel, outputs: Any, model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The model's inputs for the next token: cache, attention mask and positions."""
    updated: dict[str, Any] = model._update_model_kwargs_for_generation(outputs, model_kwargs, is_encoder_decoder=False)
    return updated


def position_ids(model: PreTrainedModel, input_ids: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
    """Positions of whole sequences as `generate` counts them; images may have positions of their own."""
    return model._prepare_position_ids_for_generation(input_ids, inputs)


def is_compiled(model: PreTrainedModel, generation_config: GenerationConfig, model_kwargs: dict[str, Any]) -> bool:
    """Whether `generate` would compile this model's decoding step with this cache."""
    return bool(model._valid_auto_compile_criteria(model_kwargs, generation_config))


def optimized_for_decoding(model: PreTrainedModel) -> AbstractContextManager[None]:
    """The context in which `generate` decodes, with the implementation of experts that suits a few tokens."""
    return model._optimize_model_for_decode()


def is_passed_by_user(cache: Cache) -> bool:
    """Whether a cache that `generate` passes to its loop was passed by the user."""
    return bool(getattr(cache, "_is_user_defined", False))


def larger_static_cache(
    model: PreTrainedModel,
    generation_config: GenerationConfig,
    batch: int,
    length: int,
    model_kwargs: dict[str, Any],
) -> Cache:
    """A static cache like the one that `generate` made, for `length` tokens or more."""
    return model._prepare_static_cache(
        cache_implementation=generation_config.cache_implementation,
        batch_size=batch,
        max_cache_len=length,
        prefill_chunk_size=generation_config.prefill_chunk_size,
        model_kwargs=model_kwargs,
    )


def prefix_function(processor: Any) -> Callable[[int, torch.Tensor], list[int]]:
    """The function of a [`~transformers.PrefixConstrainedLogitsProcessor`]."""
    function: Callable[[int, torch.Tensor], list[int]] = processor._prefix_allowed_tokens_fn
    return function


# Another decoding loop inside `generate`


class DecodingLoop(NamedTuple):
    """A loop that replaces transformers' sampling in one call of `generate`, see [`generate_with`].

    Args:
        run: Called as run(model, input_ids, logits_processor=, stopping_criteria=, generation_config=, model_kwargs=);
            `generate` returns what it returns.
        check: Called as check(mode, generation_config, mode_kwargs) once all settings are known. It raises a ValueError
            for a mode other than sampling and greedy search, which would not call `run`.
    """

    run: Callable[..., Any]
    check: Callable[[GenerationMode, GenerationConfig, dict[str, Any]], None]


class LoopMixin:
    """Lets [`generate_with`] replace the decoding loop; a base before the model's class. Other calls are unchanged."""

    def _extract_generation_mode_kwargs(
        self: Any, custom_generate: Any, kwargs: dict[str, Any], *args: Any, **named: Any
    ) -> dict[str, Any]:
        loop = kwargs.pop("decoding_loop", None)
        mode_kwargs = super()._extract_generation_mode_kwargs(custom_generate, kwargs, *args, **named)  # type: ignore[misc]
        return mode_kwargs if loop is None else {**mode_kwargs, "decoding_loop": loop}

    def _validate_generation_mode(
        self: Any, generation_mode: GenerationMode, generation_config: GenerationConfig, mode_kwargs: dict[str, Any]
    ) -> None:
        if "decoding_loop" in mode_kwargs:
            mode_kwargs["decoding_loop"].check(generation_mode, generation_config, mode_kwargs)
        super()._validate_generation_mode(generation_mode, generation_config, mode_kwargs)  # type: ignore[misc]

    def _sample(
        self: Any, input_ids: torch.Tensor, *args: Any, decoding_loop: DecodingLoop | None = None, **kwargs: Any
    ) -> Any:
        if decoding_loop is None:
            return super()._sample(input_ids, *args, **kwargs)  # type: ignore[misc]
        # Arguments of generate, which the model does not take
        for name in ("streamer", "synced_gpus", "tokenizer", "assistant_tokenizer"):
            kwargs.pop(name, None)
        prepared = {name: kwargs.pop(name) for name in ("logits_processor", "stopping_criteria", "generation_config")}
        return decoding_loop.run(self, input_ids, **prepared, model_kwargs=kwargs)


def generate_with(loop: DecodingLoop, model: Any, **kwargs: Any) -> Any:
    """Run a loop after transformers' own preparation of inputs, caches, processors and criteria.

    Args:
        model: A model whose class has [`LoopMixin`].
        **kwargs: Arguments of transformers' `generate`.
    """
    return super(LoopMixin, model).generate(**kwargs, decoding_loop=loop)  # type: ignore[misc]


def own_decoding(model_class: type, ours: Collection[str]) -> tuple[str, type] | None:
    """The name of a decoding method that is not transformers' own, and the class that defines it; None without one.

    Args:
        ours: Names of classes to ignore.
    """
    for method in ("_sample", "generate"):
        owner = next(cls for cls in model_class.__mro__ if method in vars(cls) and cls.__name__ not in ours)
        if owner is not GenerationMixin:
            return method, owner
    return None


# Watching the loops of transformers


class GenerateWatcher(Protocol):
    """The callbacks of [`watch_generate`] while `generate` runs."""

    def begins(self, mode: GenerationMode) -> None:
        """A call of `generate` begins; raise a ValueError for a mode that cannot be followed."""

    def criteria(self, criteria: StoppingCriteriaList) -> StoppingCriteriaList:
        """The stopping criteria to use instead of these after every token."""

    def cache_made(self, model_kwargs: dict[str, Any], length: int) -> None:
        """The model's inputs have a cache, which must have room for `length` tokens."""

    def forwarded(self, outputs: Any, model_kwargs: dict[str, Any], tokens: int) -> None:
        """The model was fed and returned `outputs`; its inputs are ready for the next tokens, this many."""


_WATCHED = ("_prepare_cache_for_generation", "_get_stopping_criteria", "_update_model_kwargs_for_generation")


def is_watched(model: PreTrainedModel) -> bool:
    """Whether the model is inside a [`watch_generate`] context."""
    return any(name in vars(model) for name in _WATCHED)


@contextmanager
def watch_generate(model: PreTrainedModel, watcher: GenerateWatcher) -> Iterator[None]:
    """Let the watcher follow `model.generate` inside the context, with caches that have room for one more token."""
    prepare_cache, criteria_of, update = (getattr(model, name) for name in _WATCHED)

    def watch_cache(
        generation_config: Any, model_kwargs: dict[str, Any], mode: Any, batch: int, max_cache_length: int
    ) -> None:
        prepare_cache(generation_config, model_kwargs, mode, batch, max_cache_length + 1)
        watcher.cache_made(model_kwargs, max_cache_length + 1)

    def watch_criteria(generation_config: Any, *args: Any, **kwargs: Any) -> StoppingCriteriaList:
        watcher.begins(generation_config.get_generation_mode())
        return watcher.criteria(criteria_of(generation_config, *args, **kwargs))

    def watch_update(outputs: Any, model_kwargs: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        model_kwargs = update(outputs, model_kwargs, **kwargs)
        watcher.forwarded(outputs, model_kwargs, kwargs.get("num_new_tokens", 1))
        return model_kwargs

    for name, function in zip(_WATCHED, (watch_cache, watch_criteria, watch_update), strict=True):
        setattr(model, name, function)
    try:
        yield
    finally:
        for name in _WATCHED:
            delattr(model, name)
