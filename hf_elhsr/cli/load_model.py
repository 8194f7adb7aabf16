"""The language model that a command names, with best-of-n enabled."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from ..generation import enable_best_of_n
from .demo_model import DEMO_MODEL, DEMO_MODEL_ID, demo_model_folder

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}


def load_model(name: str, dtype: str = "bfloat16") -> tuple[Any, PreTrainedTokenizerBase]:
    """The model on the best device at hand, and its tokenizer with a padding token.

    Raises:
        ValueError: An unknown dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"Unknown dtype {dtype!r}: choose one of {sorted(DTYPES)}.")
    source = demo_model_folder() if name == DEMO_MODEL else name
    tokenizer = AutoTokenizer.from_pretrained(source)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(source, dtype=DTYPES[dtype])
    if torch.cuda.is_available():
        model = model.to("cuda")
    return enable_best_of_n(model), tokenizer


def base_model_id(name: str) -> str:
    """The Hub id that a head made for this model should name."""
    return DEMO_MODEL_ID if name == DEMO_MODEL else name
