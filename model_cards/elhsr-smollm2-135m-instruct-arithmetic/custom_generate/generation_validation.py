# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/validation.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""What best-of-n refuses, with the reason, before anything is sampled."""

from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import GenerationMixin, GenerationMode
from transformers.generation.utils import MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL

from .configuration_adapters import learns_prompts

_OUR_MIXIN = "BestOfNGenerationMixin"


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
            f"This {name} carries a custom generate of its own (loaded with trust_remote_code), which best_of_n would "
            "not run. Load the model without it."
        )
    for method in ("_sample", "generate"):
        # Whichever class it is, ours aside, must have it from transformers' GenerationMixin
        owner = next(cls for cls in type(model).__mro__ if method in vars(cls) and cls.__name__ != _OUR_MIXIN)
        if owner is not GenerationMixin:
            raise ValueError(
                f"{name} has a {method} of its own (from {owner.__name__}), which best_of_n cannot stand in for."
            )


def check_request(model: Any, n: int, kwargs: dict[str, Any]) -> None:
    """Refuse arguments that cannot work.

    Settings are looked up in the call, its generation_config and the model's, in this order and before transformers
    fills in defaults, so that what the user said can be told from what is merely a default.
    """
    _check_count("best_of_n", n)
    check_model(model)
    if kwargs.get("custom_generate") is not None:
        raise ValueError("custom_generate brings its own decoding loop, so best_of_n cannot run: pass one of the two.")
    if _setting(model, kwargs, "cache_implementation") == "paged":
        raise ValueError("best_of_n cannot use the paged cache, whose rows do not multiply: leave it out.")
    if _setting(model, kwargs, "penalty_alpha") is not None or _setting(model, kwargs, "dola_layers") is not None:
        raise ValueError(
            "best_of_n samples: penalty_alpha (contrastive search) and dola_layers cannot be combined with it."
        )
    if n > 1 and _setting(model, kwargs, "do_sample") is False:
        raise ValueError(
            f"do_sample=False makes all {n} candidates the same: leave it out or set do_sample=True with best_of_n > 1."
        )
    names = ("inputs", "input_ids", "inputs_embeds")
    prompts = next((kwargs[name] for name in names if kwargs.get(name) is not None), None)
    if isinstance(prompts, torch.Tensor) and prompts.shape[0] == 0:
        raise ValueError(f"The batch of prompts is empty (shape {tuple(prompts.shape)}): pass at least one prompt.")
    if model.training and model.is_activation_checkpointing and _setting(model, kwargs, "use_cache") is not False:
        raise ValueError(
            "In training mode with gradient checkpointing the model ignores its cache, and would not see the prompt: "
            "call model.eval(), or pass use_cache=False."
        )
    media = [name for name in MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL if kwargs.get(name) is not None]
    if media and _setting(model, kwargs, "use_cache") is False:
        raise ValueError(
            f"Without a cache the model would need {', '.join(media)} in every step, for candidates that come and go: "
            "leave out use_cache=False."
        )
    # PEFT's generate puts its own preparation of inputs on the model inside
    if learns_prompts(getattr(vars(model).get("prepare_inputs_for_generation"), "__self__", None)):
        raise ValueError(
            "best_of_n cannot follow adapters that learn prompts (prompt or prefix tuning): use an adapter of the "
            "weights, such as LoRA."
        )
    if "_update_model_kwargs_for_generation" in vars(model):
        raise ValueError("best_of_n scores its own candidates: call it outside of score_generation.")


def requested_sequences(model: Any, n: int, kwargs: dict[str, Any]) -> int:
    """How many sequences are to be returned per prompt: `num_return_sequences`, at most n."""
    k = _setting(model, kwargs, "num_return_sequences")
    if k is None:
        return 1
    _check_count("num_return_sequences", k)
    if k > n:
        raise ValueError(f"num_return_sequences={k} of best_of_n={n} candidates cannot be returned: raise best_of_n.")
    return int(k)


def check_context_length(model: Any, prompt_length: int) -> None:
    """Refuse a prompt that leaves no room for a single token in the model's context."""
    context = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if context is not None and prompt_length >= context:
        raise ValueError(
            f"The prompt is {prompt_length} tokens long and the model's context holds {context}: shorten the prompt to "
            f"at most {context - 1} tokens."
        )


def check_max_parallel(max_parallel: int | None) -> int | None:
    """Refuse a number of candidates that nothing could be decoded with."""
    if max_parallel is not None:
        _check_count("max_parallel", max_parallel)
    return max_parallel


def check_min_confidence(min_confidence: float) -> None:
    """Refuse what is no probability."""
    if isinstance(min_confidence, bool) or not 0 <= min_confidence <= 1:
        raise ValueError(f"min_confidence is a probability between 0 and 1; got {min_confidence!r}.")


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of candidates, at least 1; got {value!r}.")


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
            f"output_hidden_states={generation_config.output_hidden_states!r} selects layers; best_of_n does not: "
            "pass True for all of them."
        )
    if mode_kwargs.get("synced_gpus"):
        raise ValueError(
            "best_of_n does not run with synced_gpus (FSDP or DeepSpeed ZeRO-3 over several processes): their forward "
            "passes must agree, and candidates end at different steps. Gather the model on one process."
        )


def _setting(model: Any, kwargs: dict[str, Any], name: str) -> Any:
    sources = (kwargs.get(name), getattr(kwargs.get("generation_config"), name, None))
    return next((value for value in sources if value is not None), getattr(model.generation_config, name, None))
