"""load_sampler: the language model of a command that samples, whatever its generation config says."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from ..models import load_language_model

# Best-of-n refuses them all, so no rollouts were ever sampled with one
_OTHER_DECODING = ("num_beam_groups", "penalty_alpha", "dola_layers", "prompt_lookup_num_tokens")


def load_sampler(name: str, dtype: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """[`load_language_model`], without the settings in its generation config that are for other ways to decode.

    Their owner saved them for `generate` without best-of-n. That it does not sample, or with beams, is overridden by
    [`SamplingArguments.generate_kwargs`].
    """
    model, tokenizer = load_language_model(name, dtype)
    for setting in _OTHER_DECODING:
        if getattr(model.generation_config, setting, None) is not None:
            setattr(model.generation_config, setting, None)
    return model, tokenizer
