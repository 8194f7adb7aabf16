"""What changes a head's folder, in a process of its own that kills itself at a given file operation."""

import os
import signal
import sys
from pathlib import Path

import torch

from hf_elhsr import ElhsrConfig, RewardHeadTrainingArguments
from hf_elhsr.decisions.calibration import Calibration, Line
from hf_elhsr.head.modeling_elhsr import make_head
from hf_elhsr.hub import custom_generate, head_folder
from hf_elhsr.rollouts import RolloutSet

#: What an operation of Python on files is called where it is heard.
OPERATIONS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")
NEW_CODE = {name: f"# Made by hf_elhsr, {name}\n" for name in ("requirements.txt", "generate.py", "rewards.py")}
_TRAINING = RewardHeadTrainingArguments(learning_rate=0.02, max_epochs=2)


def tiny_saved_head(number):
    """A head whose weights and configuration both say which one it is."""
    head = make_head(ElhsrConfig(hidden_size=8, layers=[0, 1], base_model=f"org/model-{number}"))
    head.weight.data.fill_(float(number))
    return head


def save(folder):
    tiny_saved_head(2).save_pretrained(folder)


def train(folder):
    head_folder.train_head_folder(RolloutSet(folder.parent / "rollouts"), _TRAINING, folder)


def calibrate(folder):
    """Without rollouts: what is fitted is not the point."""
    head_folder.score_rollouts = lambda rollouts, head: None
    head_folder.fit_decisions = lambda scored: {"calibration": Calibration(2.0, 0.0, Line(2.0, 0.0), n=4, prompts=10)}
    rollouts = RolloutSet(folder.parent / "rollouts")
    rollouts.settings = rollouts.settings | {"split": "more"}
    head_folder.calibrate_head_folder(folder, rollouts)


def write_code(folder):
    custom_generate.custom_generate_files = lambda repo_id: NEW_CODE
    custom_generate.write_custom_generate(folder)


def run_and_die(writer, folder, fatal_operation):
    """Run a writer until its given operation on files in the folder, counted from 0, and be killed before it.

    A file that is opened for writing is left empty. The number of operations is written to `folder.operations` by a run
    that ends.
    """
    torch.set_num_threads(1)
    folder = Path(folder)
    done = 0

    def count(event, arguments):
        nonlocal done
        if event not in OPERATIONS or not str(arguments[0]).startswith(str(folder) + os.sep):
            return
        if done == fatal_operation:
            if event == "open" and "w" in (arguments[1] or ""):
                os.mknod(arguments[0])
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1

    sys.addaudithook(count)
    globals()[writer](folder)
    folder.with_suffix(".operations").write_text(str(done))
