"""What do pruning and adaptive n save and cost in real runs? Writes pruning.json, or the file of --out.

SmolLM2-135M-Instruct in bfloat16 with the shipped head, on test prompts that nothing else was measured on. All modes
decode the same batches of 16 prompts, one after the other in an order that rotates. About six minutes on two cores.
pruning_more.json has more prompts, for the accuracies:

    python benchmarks/pruning.py --prompts 304 --skip 11828 --out benchmarks/pruning_more.json
"""

import argparse
import datetime
import json
import platform
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from hf_elhsr import ElhsrRewardHead
from hf_elhsr._files import write_text
from hf_elhsr.evaluation.bootstrap import bootstrap_interval
from hf_elhsr.models import load_language_model
from hf_elhsr.rollouts import SamplingArguments, encode_prompts
from hf_elhsr.tasks import ArithmeticTask

HEAD = Path(__file__).parents[1] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
MODES: dict[str, dict[str, float]] = {
    "exact": {},
    "prune=0.02": {"prune": 0.02},
    "adaptive=0.02": {"adaptive": 0.02},
}
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=112)
    parser.add_argument("--skip", type=int, default=11216, help="test prompts that come before, used elsewhere")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--note", help="on this run, for the file")
    args = parser.parse_args()
    task, settings = ArithmeticTask(), SamplingArguments()
    head = ElhsrRewardHead.from_pretrained(HEAD)
    model, tokenizer = load_language_model("smollm2-demo", "bfloat16")
    problems = task.problems("test", args.skip + args.prompts)[args.skip :]
    seconds, tokens, correct = (defaultdict(list) for _ in range(3))
    modes = list(MODES)
    for batch, first in enumerate(tqdm(range(0, len(problems), BATCH))):
        asked = problems[first : first + BATCH]
        inputs = encode_prompts(tokenizer, [problem.question for problem in asked]).to(model.device)
        for mode in modes[batch % len(modes) :] + modes[: batch % len(modes)]:
            torch.manual_seed(batch)
            start = time.perf_counter()
            out = model.generate(
                **inputs,
                best_of_n=settings.n,
                reward_head=head,
                return_dict_in_generate=True,
                **MODES[mode],
                **settings.generate_kwargs(),
            )
            seconds[mode].append(time.perf_counter() - start)
            texts = tokenizer.batch_decode(out.sequences[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            tokens[mode] += out.lengths.sum(-1).tolist()
            correct[mode] += [task.verify(problem, text) for problem, text in zip(asked, texts, strict=True)]
    result = {
        "question": "tokens, seconds and accuracy of pruning and adaptive n, in real runs",
        "prompts": len(problems),
        "skip": args.skip,
        "n": settings.n,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        **({"note": args.note} if args.note else {}),
        "modes": {mode: _summary(mode, seconds, tokens, correct) for mode in modes},
    }
    write_text(args.out, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["modes"], indent=2))


def _summary(mode: str, seconds: dict[str, Any], tokens: dict[str, Any], correct: dict[str, Any]) -> dict[str, Any]:
    own, exact = np.array(correct[mode], dtype=float), np.array(correct["exact"], dtype=float)
    difference = own - exact
    interval = bootstrap_interval(difference[:, None], lambda means: means[:, 0])
    return {
        "seconds": float(np.sum(seconds[mode])),
        "seconds_to_exact": float(np.sum(seconds[mode]) / np.sum(seconds["exact"])),
        "tokens": int(np.sum(tokens[mode])),
        "tokens_to_exact": float(np.sum(tokens[mode]) / np.sum(tokens["exact"])),
        "accuracy": float(own.mean()),
        "accuracy_less_exact": float(difference.mean()),
        "accuracy_less_exact_interval": interval,
    }


if __name__ == "__main__":
    main()
