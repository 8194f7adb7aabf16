"""Fuzz generate: python tests/fuzz/run.py --calls 10000 [--first 0] [--seconds 3600]; prints how the calls ended."""

import argparse
import logging
import os
import time
import warnings
from collections import Counter

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from architectures import ARCHITECTURES
from calls import random_call
from judging import FindingError, judge
from transformers.utils import logging as transformers_logging


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first call")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity(logging.CRITICAL)
    warnings.simplefilter("ignore")
    outcomes: Counter[str] = Counter()
    architectures = set()
    begin = time.monotonic()
    for seed in range(options.first, options.first + options.calls):
        if time.monotonic() - begin > options.seconds:
            break
        call = random_call(seed)
        architectures.add(call.architecture)
        try:
            outcomes[judge(call)] += 1
        except FindingError as finding:
            outcomes["FINDING"] += 1
            print(f"FINDING {call}\n    {finding}", flush=True)
    print(
        f"{sum(outcomes.values())} calls from seed {options.first}, {len(architectures)} of {len(ARCHITECTURES)}",
        end="",
    )
    print(f" architectures, {time.monotonic() - begin:.0f} s")
    for outcome, count in outcomes.most_common():
        print(f"{count:8}  {outcome}")
    return int(outcomes["FINDING"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
