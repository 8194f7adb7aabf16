"""How many training prompts does a head need? Writes training_size.json beside itself.

Heads trained with the defaults on the first 50, 100, 200, ... prompts of rollouts/train (`make head` samples them) are
applied to the same rollouts of unseen test prompts, which are sampled once with their features into rollouts/test_size
(about 13 MB a prompt). Best-of-8 is compared with majority vote and mean log-probability, paired by prompt.
"""

import argparse
import dataclasses
import datetime
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_elhsr import ElhsrConfig
from hf_elhsr.cli.load_model import load_model
from hf_elhsr.evaluation import strategies
from hf_elhsr.evaluation.best_of_k import best_of_k
from hf_elhsr.evaluation.bootstrap import bootstrap_interval
from hf_elhsr.rollouts import ArithmeticTask, RolloutSet, SamplingSettings, ScoredRollouts, sample_rollouts
from hf_elhsr.rollouts.rollout_set import by_prompt, write_text
from hf_elhsr.training import PRESETS, train_head

TRAIN, TEST = Path("rollouts/train"), Path("rollouts/test_size")
PEERS = {
    "majority vote": strategies.majority_vote,
    "summed log-probability": strategies.summed_log_probability,
    "mean log-probability": strategies.mean_log_probability,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 400, 800, 1600, 3200])
    parser.add_argument("--prompts", type=int, default=400, help="test prompts")
    parser.add_argument("--skip", type=int, default=8716, help="test prompts that come before, used elsewhere")
    args = parser.parse_args()
    model, tokenizer = load_model("smollm2-demo")
    test = sample_rollouts(
        model,
        tokenizer,
        ArithmeticTask(),
        "test",
        args.prompts,
        TEST,
        SamplingSettings(),
        config=ElhsrConfig.for_model(model),
        skip=args.skip,
    )
    groups = [members for shard, _ in test.shards() for members in by_prompt(shard)]
    peers = {name: np.array([strategy(group) for group in groups]) for name, strategy in PEERS.items()}
    train = RolloutSet(TRAIN)
    file = Path(__file__).with_suffix(".json")
    result: dict[str, Any] = {
        "question": "best-of-8 of heads trained on few prompts, against peers on the same rollouts",
        "test_prompts": len(groups),
        "skip": args.skip,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "peers": {name: _measured(own) for name, own in peers.items()},
        "single_sample": _measured(np.array([strategies.single_sample(group) for group in groups])),
        "sizes": {},
    }
    for size in args.sizes:
        start = time.perf_counter()
        head, report = train_head(train, dataclasses.replace(PRESETS["default"], prompts=size))
        seconds = time.perf_counter() - start
        scored = ScoredRollouts.from_rollouts(test, head)
        own = best_of_k(scored.rewards, scored.labels)[:, -1]
        result["sizes"][size] = {
            "train_prompts": report.train_prompts,
            "held_out_prompts": report.held_out_prompts,
            "epochs": len(report.held_out_loss),
            "seconds": seconds,
            "best_of_8": _measured(own),
            "ahead_of": {name: _measured(own - other) for name, other in peers.items()},
        }
        write_text(file, json.dumps(result, indent=2) + "\n")
        print(size, json.dumps(result["sizes"][size]), flush=True)


def _measured(values: np.ndarray) -> dict[str, Any]:
    interval = bootstrap_interval(values[:, None], lambda means: means[:, 0])
    return {"value": float(values.mean()), "interval": interval}


if __name__ == "__main__":
    main()
