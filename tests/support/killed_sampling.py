"""A sampling run in a process of its own that kills itself at a given file operation."""

import os
import signal
import sys
from pathlib import Path

import torch
from tiny_task import TinyTask
from tiny_tokenizer import tiny_tokenizer

from hf_elhsr import ElhsrConfig, enable_best_of_n
from hf_elhsr.rollouts import Recording, SamplingArguments, sample_rollouts
from tiny_models import tiny_model

PROMPTS, PROMPTS_PER_BATCH, N = 10, 2, 3


def sample_tiny(folder):
    model = enable_best_of_n(tiny_model())
    arguments = SamplingArguments(n=N, max_new_tokens=5, prompts_per_batch=PROMPTS_PER_BATCH)
    config = ElhsrConfig.for_model(model)
    # Whatever the process did before must not matter
    torch.seed()
    return sample_rollouts(
        model,
        tiny_tokenizer(),
        TinyTask(),
        folder,
        prompts=PROMPTS,
        arguments=arguments,
        recording=Recording(config=config),
    )


def sample_and_die(folder, fatal_operation):
    """Sample until the given file operation in the folder, counted from 0, and be killed in it.

    Operations are those that Python is asked for: opening a file, and renaming one. A file opened for writing is left
    empty, and one about to be renamed is cut short, as if it had never reached the disk whole. The number of operations
    is written to `folder.operations` by a run that ends.
    """
    torch.set_num_threads(1)
    folder = Path(folder)
    done = 0

    def count(event, arguments):
        nonlocal done
        if event not in ("open", "os.rename") or not str(arguments[0]).startswith(f"{folder}{os.sep}"):
            return
        if done == fatal_operation:
            if event == "os.rename":
                os.truncate(arguments[0], os.path.getsize(arguments[0]) // 2)
            elif "w" in (arguments[1] or ""):
                # Not open(), which would be heard here again
                Path(arguments[0]).unlink(missing_ok=True)
                os.mknod(arguments[0])
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1

    sys.addaudithook(count)
    sample_tiny(folder)
    folder.with_suffix(".operations").write_text(str(done))
