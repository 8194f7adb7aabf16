"""What does the reward of one candidate cost? Writes cost.json.

Parameters, floating-point operations and milliseconds per candidate, for arithmetic prompts with 8 candidates each by
SmolLM2-135M-Instruct in bfloat16. Operations are those that torch's counter counts; the head's are two for each of its
weights and tokens. Measured are

- "reward head": the shipped head, on all layers, while decoding, where the hidden states exist anyway, for one
  prompt and for 16 together; and in the same way a head on seven layers, whose weights are 0, since cost does not depend
  on them;
- "text reward model": one forward pass of a sequence classifier of the language model's size over prompt and candidate;
- "published code": one forward pass of the language model over prompt and candidate, and the head on what it shows.
"""

import argparse
import datetime
import itertools
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification

from hf_elhsr import ElhsrConfig, ElhsrRewardHead, RunningReward
from hf_elhsr._files import write_text
from hf_elhsr.models import demo_model_folder, load_language_model
from hf_elhsr.rollouts import encode_prompts
from hf_elhsr.tasks import ArithmeticTask

HEAD = "model_cards/elhsr-smollm2-135m-instruct-arithmetic"
# As in examples/reproduction/small.json, whose report says what such a head is worth
FEW_LAYERS = [12, 14, 16, 18, 20, 22, 24]
N = 8


class TimedReward(RunningReward):
    """Measures how long its own calls take."""

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
    parser.add_argument("--prompts", type=int, default=32, help="a multiple of 16")
    args = parser.parse_args()
    if args.prompts < 16 or args.prompts % 16:
        parser.error(f"--prompts {args.prompts}: expected a multiple of 16")
    model, tokenizer = load_language_model("smollm2-demo")
    tokenizer.padding_side = "left"
    head = ElhsrRewardHead.from_pretrained(HEAD)
    few = ElhsrRewardHead(ElhsrConfig.for_model(model, layers=FEW_LAYERS, value=True))
    heads = {"reward head": head, f"reward head on {len(FEW_LAYERS)} layers": few}
    classifier = AutoModelForSequenceClassification.from_pretrained(
        demo_model_folder(), num_labels=1, dtype=model.dtype
    ).eval()
    classifier.config.pad_token_id = tokenizer.pad_token_id
    questions = [problem.question for problem in ArithmeticTask().problems("train", args.prompts)]
    costs: dict[str, list[tuple[float, float]]] = {}
    tokens = []
    for (kind, measured_head), together in itertools.product(heads.items(), (1, 16)):
        own = costs[f"{kind}, {together} prompts together" if together > 1 else kind] = []
        # W h_t: a product and a sum for each weight, the row for pruning among them, in one product
        weights = measured_head.weight.numel() + measured_head.value_weight.numel()
        # The first batch once more: it warms up
        batches = [questions[first : first + together] for first in range(0, len(questions), together)]
        for number, batch in enumerate([batches[0], *batches]):
            inputs = encode_prompts(tokenizer, batch)
            torch.manual_seed(number)
            timed = TimedReward(measured_head)
            candidates = model.sample_candidates(
                **inputs, n=N, signal_processor=[timed], max_new_tokens=64, temperature=0.8, top_p=0.9, top_k=0
            )
            # Steps that wait are scored when somebody asks
            if not torch.isfinite(timed.rewards).all():
                raise ValueError("A reward is not finite, so there is nothing to time.")
            if not number:
                continue
            sampled = int(candidates.lengths.sum()) / (N * together)
            own.append((2.0 * weights * sampled, 1000 * timed.seconds / (N * together)))
            if together == 1 and measured_head is head:
                tokens.append(sampled)
                for name, measured in second_passes(classifier, model, head, inputs["input_ids"], candidates).items():
                    costs.setdefault(name, []).append(measured)
    parameters = {name: of_reward(few if "layers" in name else head) for name in costs}
    parameters["text reward model"] = sum(parameter.numel() for parameter in classifier.parameters())
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
                "operations": statistics.mean(operations for operations, _ in measured),
                "milliseconds": statistics.median(milliseconds for _, milliseconds in measured),
                "milliseconds_from_to": [min(ms for _, ms in measured), max(ms for _, ms in measured)],
            }
            for name, measured in costs.items()
        },
    }
    text = result["costs"]["text reward model"]
    result["text_reward_model_over"] = {
        name: {what: text[what] / cost[what] for what in ("parameters", "operations", "milliseconds")}
        for name, cost in result["costs"].items()
        if name.startswith("reward head")
    }
    write_text(Path(__file__).with_suffix(".json"), json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def of_reward(head: ElhsrRewardHead) -> int:
    """Count the parameters of R, without the row for pruning."""
    return head.weight.numel() + head.bias.numel()


def second_passes(
    classifier: Any, model: Any, head: ElhsrRewardHead, prompt: torch.Tensor, candidates: Any
) -> dict[str, tuple[float, float]]:
    """Measure operations and milliseconds per candidate of both ways that run a model over a prompt's candidates."""
    rows = [torch.cat([prompt[0], candidates.completion(0, number)]) for number in range(N)]
    pad = classifier.config.pad_token_id
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    completion = mask & (torch.arange(ids.shape[1]) >= prompt.shape[1])
    return {
        "text reward model": counted(lambda: classifier(input_ids=ids, attention_mask=mask.long())),
        "published code": counted(lambda: head.score(model, ids, completion, mask.long())),
    }


def counted(run: Any) -> tuple[float, float]:
    """Count floating-point operations, and time a second run without the counter; both per candidate."""
    with FlopCounterMode(display=False) as counter:
        run()
    start = time.perf_counter()
    run()
    return counter.get_total_flops() / N, 1000 * (time.perf_counter() - start) / N


if __name__ == "__main__":
    main()
