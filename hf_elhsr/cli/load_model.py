"""The models that a command names: the language model with best-of-n enabled, and a text reward model."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from ..generation import enable_best_of_n
from ..hub import is_hub_id
from ..rewards import TextRewardModel
from .demo_model import DEMO_MODEL, DEMO_MODEL_ID, demo_model_folder

logger = logging.get_logger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}


def load_model(name: str, dtype: str = "bfloat16") -> tuple[Any, PreTrainedTokenizerBase]:
    """The model on the best device at hand, and its tokenizer with a padding token.

    Raises:
        ValueError: An unknown dtype.
    """
    torch_dtype = _dtype(dtype)
    source = demo_model_folder() if name == DEMO_MODEL else name
    tokenizer = _tokenizer(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch_dtype)
    if torch.cuda.is_available():
        model = model.to("cuda")
    return enable_best_of_n(model), tokenizer


def load_text_reward_model(name: str, dtype: str = "bfloat16") -> tuple[TextRewardModel, str]:
    """The classifier on the best device at hand, and a name that changes with its weights.

    Raises:
        ValueError: An unknown dtype, or no classifier with one or two labels.
    """
    tokenizer = _tokenizer(name)
    model = AutoModelForSequenceClassification.from_pretrained(name, dtype=_dtype(dtype))
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    digest = hashlib.sha256()
    for parameter in model.state_dict().values():
        digest.update(parameter.contiguous().view(torch.uint8).numpy().tobytes())
    if torch.cuda.is_available():
        model = model.to("cuda")
    # Of a folder its own name: where it lies has no part in what it says, and is nobody's business
    named = Path(name).resolve().name if Path(name).is_dir() else name
    return TextRewardModel(model, tokenizer), f"{named} in {dtype}, {digest.hexdigest()}"


def _tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(source)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ValueError(f"Unknown dtype {name!r}: choose one of {sorted(DTYPES)}.")
    return DTYPES[name]


def base_model_id(name: str) -> str:
    """The Hub id that a head made for this model should name."""
    return DEMO_MODEL_ID if name == DEMO_MODEL else name


def recorded_base_model(name: str, given: str | None = None) -> str:
    """The id that a head to be made records; a warning where it could not be published by it, before all the work.

    Args:
        name: The language model, as `--model` names it.
        given: What `--base-model` says.

    Raises:
        ValueError: What was given is no id on the Hub.
    """
    if given is not None and not is_hub_id(given):
        raise ValueError(
            f'--base-model {given}: expected the model\'s id on the Hub, as "org/name", and no folder here.'
        )
    base_model = given or base_model_id(name)
    if not is_hub_id(base_model):
        logger.warning(
            f"The head will record {base_model!r} as its language model, which is no id on the Hub: publishing needs "
            'one. Give it now, as --base-model "org/name".'
        )
    return base_model
