"""arrange_progress_bars: bars are for the one who waits at a terminal."""

import os
import sys

from huggingface_hub.utils.tqdm import disable_progress_bars
from transformers.utils import logging


def arrange_progress_bars() -> None:
    """Take bars away when they are done, and draw none where standard error is no terminal.

    It holds for our own bars, which are transformers' kind, and for those of transformers, huggingface_hub and
    datasets.
    """
    if sys.stderr.isatty():
        logging.set_tqdm_hook(lambda make, args, kwargs: make(*args, **{"leave": False} | kwargs))
        return
    logging.disable_progress_bar()
    disable_progress_bars()
    # Read by datasets at its import, which is later and only for some tasks
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
