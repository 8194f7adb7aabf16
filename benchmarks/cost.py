"""What does the reward of one candidate cost? Writes cost.json beside itself.

Parameters, floating-point operations (as torch's counter counts them) and milliseconds per candidate, for arithmetic
prompts with 8 candidates each by SmolLM2-135M-Instruct in bfloat16, of

- "reward head": the shipped head while decoding, where the hidden states are there anyway;
- "text reward model": one forward pass of a sequence classifier of the language model's size over prompt and candidate;
- "published code": one forward pass of the language model over prompt and candidate, and the head on what it shows.
"""

import argparse
import datetime
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification

from hf_elhsr import ElhsrRewardHead, RunningReward
from hf_elhsr.cli.demo_model import demo_model_folder
from hf_elhsr.cli.load_model import load_model
from hf_elhsr.rollouts import ArithmeticTask, encode_prompts
from hf_elhsr.rollouts.rollout_set import write_text

HEAD = "model_cards/elhsr-smollm2-135m-instruct-arithmetic"
N = 8


class TimedReward(RunningReward):
    """Knows how long its own calls took."""

    seconds = 0.0

    def __call__(self, *arguments: Any) -> None:
        start = time.perf_counter()
        super().__call__(*arguments)
        self.seconds += time.perf_counter() - start

    @property
    def rewards(self) -> torch.Tensor:
        start = time.perf_counter()
        rewards = super().rewards
        self.seconds += time.perf_counter() - start
        return rewards


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=24)
    args = parser.parse_args()
    model, tokenizer = load_model("smollm2-demo")
    head = ElhsrRewardHead.from_pretrained(HEAD)
    classifier = AutoModelForSequenceClassification.from_pretrained(
        demo_model_folder(), num_labels=1, dtype=model.dtype
    ).eval()
    classifier.config.pad_token_id = tokenizer.pad_token_id
    # The row for pruning is computed in the same product
    weights = head.weight.numel() + (head.value_weight.numel() if head.config.value else 0)
    costs: dict[str, list[tuple[float, float]]] = {"reward head": [], "text reward model": [], "published code": []}
    tokens = []
    for number, problem in enumerate(ArithmeticTask().problems("train", args.prompts + 1)):
        inputs = encode_prompts(tokenizer, [problem.question])
        torch.manual_seed(number)
        timed = TimedReward(head)
        candidates = model.sample_candidates(
            **inputs, n=N, signal_processor=[timed], max_new_tokens=64, temperature=0.8, top_p=0.9, top_k=0
        )
        # Steps that wait are scored when somebody asks
        assert torch.isfinite(timed.rewards).all()
        sampled = int(candidates.lengths.sum())
        rows = [torch.cat([inputs["input_ids"][0], candidates.completion(0, c)]) for c in range(N)]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        completion = mask.bool() & (torch.arange(ids.shape[1]) >= inputs["input_ids"].shape[1])

        def text_reward_model(ids: torch.Tensor = ids, mask: torch.Tensor = mask) -> None:
            classifier(input_ids=ids, attention_mask=mask)

        def published(ids: torch.Tensor = ids, mask: torch.Tensor = mask, own: torch.Tensor = completion) -> None:
            head.score(model, ids, own, mask)

        measured = {"text reward model": counted(text_reward_model), "published code": counted(published)}
        # W h_t: a product and a sum for each weight; what comes after is arithmetic of three numbers a token
        measured["reward head"] = (2.0 * weights * sampled, timed.seconds)
        # The first prompt warms up
        if number:
            tokens.append(sampled / N)
            for name, (operations, seconds) in measured.items():
                costs[name].append((operations / N, 1000 * seconds / N))
    parameters = {
        "reward head": head.weight.numel() + head.bias.numel(),
        "text reward model": sum(parameter.numel() for parameter in classifier.parameters()),
        "published code": head.weight.numel() + head.bias.numel(),
    }
    result: dict[str, Any] = {
        "question": __doc__.splitlines()[0].partition(" Writes")[0],
        "prompts": args.prompts,
        "candidates": args.prompts * N,
        "tokens_per_candidate": statistics.mean(tokens),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "costs": {
            name: {
                "parameters": parameters[name],
                "operations": statistics.mean(operations for operations, _ in own),
                "milliseconds": statistics.median(milliseconds for _, milliseconds in own),
                "milliseconds_from_to": [min(ms for _, ms in own), max(ms for _, ms in own)],
            }
            for name, own in costs.items()
        },
    }
    own = result["costs"]["reward head"]
    result["text_reward_model_over_head"] = {
        what: result["costs"]["text reward model"][what] / own[what]
        for what in ("parameters", "operations", "milliseconds")
    }
    write_text(Path(__file__).with_suffix(".json"), json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def counted(run: Any) -> tuple[float, float]:
    """Floating-point operations, and seconds of another run without the counter."""
    with FlopCounterMode(display=False) as counter:
        run()
    start = time.perf_counter()
    run()
    return float(counter.get_total_flops()), time.perf_counter() - start


if __name__ == "__main__":
    main()
