"""How much memory does training on stored features take? Writes training_memory.json.

`RewardHeadTrainer` on the features of more and more prompts, each in a process of its own. It reports
the process's own memory, which must fit, and the resident set, which includes pages of the mapped features: the system
reclaims those when memory is short.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch
from training_speed import first_prompts

from hf_elhsr._files import write_text
from hf_elhsr.rollouts import RolloutSet
from hf_elhsr.training import RewardHeadTrainer, RewardHeadTrainingArguments

EPOCHS = 2


class OwnMemory(threading.Thread):
    """Reads the process's anonymous memory twenty times a second, and keeps the maximum."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_kilobytes, self.done = 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            [kilobytes] = [int(line.split()[1]) for line in lines if line.startswith("RssAnon")]
            self.peak_kilobytes = max(self.peak_kilobytes, kilobytes)


def measure(folder: Path, prompts: int) -> dict[str, Any]:
    """Measure in this process."""
    with tempfile.TemporaryDirectory() as view:
        rollouts = first_prompts(folder, prompts, Path(view))
        files = [file for _, file in rollouts.shards()]
        watched = OwnMemory()
        watched.start()
        RewardHeadTrainer(rollouts, RewardHeadTrainingArguments(max_epochs=EPOCHS)).train()
        watched.done.set()
        return {
            "prompts": prompts,
            "rollouts": len(rollouts.rollouts()),
            "stored_features_mb": round(sum(file.stat().st_size for file in files) / 1e6),
            "peak_own_memory_mb": round(watched.peak_kilobytes * 1024 / 1e6),
            # In kilobytes on Linux
            "peak_resident_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=Path, default=Path("rollouts/train"), help="of 400 prompts, with features")
    parser.add_argument("--prompts", type=int, nargs="+", default=[48, 192, 400])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_this_process:
        print(json.dumps(measure(args.rollouts, args.prompts[0])))
        return
    sizes = []
    for prompts in args.prompts:
        command = [sys.executable, __file__, "--in-this-process", "--rollouts", args.rollouts, "--prompts", prompts]
        done = subprocess.run(map(str, command), stdout=subprocess.PIPE, text=True, check=True)
        sizes.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(sizes[-1]))
    result = {
        "question": __doc__.splitlines()[0].partition(" Writes")[0],
        "epochs": EPOCHS,
        "features": RolloutSet(args.rollouts).config.num_features,
        "machine": f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads",
        "sizes": sizes,
    }
    write_text(args.out, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
