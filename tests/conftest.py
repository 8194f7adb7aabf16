import os
import signal

import pytest
import torch

# Tests reach no network: whatever is loaded lies on this machine or on a server of the test's own
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_elhsr import enable_best_of_n
from hf_elhsr.models import demo_model_folder
from tiny_models import ragged_prompts, tiny_head, tiny_model

# Workers side by side have one core each, and so have the processes that they start
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
else:
    torch.set_num_threads(2)


# A background job of a script, as in many CI systems, inherits an ignored Ctrl-C, and so would what tests start
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def model():
    return enable_best_of_n(tiny_model())


@pytest.fixture
def head(model):
    return tiny_head(model)


@pytest.fixture
def inputs():
    return ragged_prompts()


@pytest.fixture(scope="session")
def smollm2_folder():
    return demo_model_folder()


@pytest.fixture(scope="session")
def smollm2(smollm2_folder):
    """SmolLM2-135M-Instruct in float32, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32)
    return enable_best_of_n(model), AutoTokenizer.from_pretrained(smollm2_folder)
