"""A task of your own, from its class to an evaluated head: is a number odd or even?

    python examples/own_task.py rollouts/parity

The rollouts and the head are written to the folder; a second run reuses the rollouts.
"""

import argparse
import random
import re
from pathlib import Path

from hf_elhsr import (
    Problem,
    Recording,
    RewardHeadTrainer,
    SamplingArguments,
    evaluate_rollouts,
    load_language_model,
    sample_rollouts,
)
from hf_elhsr.evaluation import evaluation_markdown


class ParityTask:
    """A task needs three methods: its problems, the final answer of a completion, and whether it is correct."""

    name = "parity"
    splits = ("train", "test")

    def problems(self, split: str, count: int, seed: int = 0) -> list[Problem]:
        # For every count and seed, no number is in both splits, and a longer list starts with a shorter one
        numbers = [number for number in range(100, 1000) if (number % 5 == 0) == (split == "test")]
        random.Random(seed).shuffle(numbers)
        return [
            Problem(
                id=f"parity-{number}",
                question=f"Is the number {number} odd or even?",
                answer="odd" if number % 2 else "even",
                template="parity",
            )
            for number in numbers[:count]
        ]

    def extract(self, completion: str) -> str | None:
        words = re.findall(r"\b(odd|even)\b", completion.lower())
        return words[-1] if words else None

    def verify(self, problem: Problem, completion: str) -> bool:
        return self.extract(completion) == problem.answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", type=int, default=200, help="to train on")
    parser.add_argument("--test-prompts", type=int, default=100)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    args = parser.parse_args()
    arguments = SamplingArguments(n=args.n, max_new_tokens=args.max_new_tokens)
    model, tokenizer = load_language_model("smollm2-demo")
    task = ParityTask()
    # Features are recorded unless a head is passed, which records rewards
    rollouts = sample_rollouts(model, tokenizer, task, args.folder / "train", prompts=args.prompts, arguments=arguments)
    trainer = RewardHeadTrainer(rollouts)
    report = trainer.train()
    trainer.head.save_pretrained(args.folder / "head")
    print(f"Kept epoch {report.best_epoch + 1}; {report.base_rate:.1%} of the held-out rollouts are correct.")
    unseen = sample_rollouts(
        model,
        tokenizer,
        task,
        args.folder / "test",
        split="test",
        prompts=args.test_prompts,
        arguments=arguments,
        recording=Recording(head=trainer.head),
    )
    print(evaluation_markdown(evaluate_rollouts(unseen)))


if __name__ == "__main__":
    main()
