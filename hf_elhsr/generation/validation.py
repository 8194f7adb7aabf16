"""What best-of-n refuses, with the reason, before anything is sampled."""

from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import GenerationMixin, GenerationMode


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
    own = [cls for cls in type(model).__mro__ if "_sample" in vars(cls) and cls.__module__.startswith("transformers")]
    if own[0] is not GenerationMixin:
        raise ValueError(f"{name} has a sampling loop of its own, which best_of_n cannot replace.")


def check_request(model: Any, n: int, kwargs: dict[str, Any]) -> int:
    """Refuse arguments that cannot work, and return how many sequences are to be returned per prompt.

    Settings are looked up in the call, its generation_config and the model's, in this order and before transformers
    fills in defaults, so that what the user said can be told from what is merely a default.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"best_of_n must be a whole number of candidates, at least 1; got {n!r}.")
    check_model(model)
    k = _setting(model, kwargs, "num_return_sequences") or 1
    if k > n:
        raise ValueError(f"num_return_sequences={k} of best_of_n={n} candidates cannot be returned: raise best_of_n.")
    if kwargs.get("custom_generate") is not None:
        raise ValueError("custom_generate brings its own decoding loop, so best_of_n cannot run: pass one of the two.")
    if _setting(model, kwargs, "cache_implementation") == "paged":
        raise ValueError("best_of_n cannot use the paged cache, whose rows do not multiply: leave it out.")
    if n > 1 and _setting(model, kwargs, "do_sample") is False:
        raise ValueError(
            f"do_sample=False makes all {n} candidates the same: leave it out or set do_sample=True with best_of_n > 1."
        )
    prompts = next(
        (kwargs[name] for name in ("inputs", "input_ids", "inputs_embeds") if kwargs.get(name) is not None), None
    )
    if isinstance(prompts, torch.Tensor) and prompts.shape[0] == 0:
        raise ValueError(f"The batch of prompts is empty (shape {tuple(prompts.shape)}): pass at least one prompt.")
    return k


def check_generation_mode(
    mode: GenerationMode, generation_config: GenerationConfig, mode_kwargs: dict[str, Any]
) -> None:
    """Refuse decoding modes other than sampling; called by `generate` once all settings are known."""
    if mode not in (GenerationMode.SAMPLE, GenerationMode.GREEDY_SEARCH):
        raise ValueError(
            f"best_of_n samples its candidates and cannot be combined with {mode.value.replace('_', ' ')}: leave out "
            "num_beams, assistant_model, prompt_lookup_num_tokens and the like."
        )
    if mode_kwargs.get("synced_gpus"):
        raise ValueError(
            "best_of_n does not run with synced_gpus (FSDP or DeepSpeed ZeRO-3 over several processes): their forward "
            "passes must agree, and candidates end at different steps. Gather the model on one process."
        )


def _setting(model: Any, kwargs: dict[str, Any], name: str) -> Any:
    sources = (kwargs.get(name), getattr(kwargs.get("generation_config"), name, None))
    return next((value for value in sources if value is not None), getattr(model.generation_config, name, None))
