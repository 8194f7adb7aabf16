"""The demo: SmolLM2-135M-Instruct answers word problems better with a reward head that selects among eight candidates.

Run it with `make demo`. (a) One question with its eight candidates; (b) a table over a few dozen unseen questions.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from hf_elhsr import (
    Recording,
    SamplingArguments,
    encode_prompts,
    evaluate_rollouts,
    load_language_model,
    load_reward_head,
    sample_rollouts,
)
from hf_elhsr.evaluation import evaluation_markdown
from hf_elhsr.tasks import ArithmeticTask

HEAD = Path(__file__).parents[1] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
# Of the test split, like all questions below
QUESTION = "Anna found 4 coins on Monday and 7 coins on Tuesday. How many coins did Anna find altogether?"
ANSWER = "11"


def show_one_question(model, tokenizer, head, console: Console, arguments: SamplingArguments) -> None:
    inputs = encode_prompts(tokenizer, [QUESTION]).to(model.device)
    torch.manual_seed(arguments.seed)
    started = time.perf_counter()
    out = model.generate(
        **inputs, best_of_n=arguments.n, reward_head=head, return_dict_in_generate=True, **arguments.generate_kwargs()
    )
    seconds = time.perf_counter() - started
    prompt_length = inputs["input_ids"].shape[1]
    texts = tokenizer.batch_decode(out.candidates[0][:, prompt_length:], skip_special_tokens=True)
    task = ArithmeticTask()
    console.print(f"\n[bold]{QUESTION}[/bold]  ({arguments.n} candidates in {seconds:.1f} s)\n")
    table = Table("Reward", "P(correct)", "Correct?", "Text", show_lines=True)
    for candidate in out.rewards[0].argsort(descending=True).tolist():
        reward, text = out.rewards[0, candidate], texts[candidate]
        table.add_row(
            f"{reward:+.2f}",
            f"{torch.sigmoid(reward):.1%}",
            "yes" if task.extract(text) == ANSWER else "no",
            Text(" ".join(text.split())),
            style="bold green" if candidate == int(out.winners[0, 0]) else None,
        )
    console.print(table)


def show_many_questions(
    model, tokenizer, head, console: Console, arguments: SamplingArguments, split: str, count: int
) -> None:
    started = time.perf_counter()
    # Not kept: every demo is a fresh measurement
    with tempfile.TemporaryDirectory() as folder:
        rollouts = sample_rollouts(
            model,
            tokenizer,
            ArithmeticTask(),
            folder,
            split=split,
            prompts=count,
            arguments=arguments,
            recording=Recording(head=head),
        )
        evaluation = evaluate_rollouts(rollouts)
    seconds = time.perf_counter() - started
    console.print(Markdown(evaluation_markdown(evaluation)))
    console.print(
        f"{count} questions x {arguments.n} candidates, sampled, scored and verified in {seconds:.0f} s "
        f"({seconds / count:.2f} s a question). The card's numbers come from many more questions."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=48, help="how many unseen questions")
    parser.add_argument("--head", type=Path, default=HEAD, help="the reward head's folder")
    arguments = parser.parse_args()
    console = Console()
    console.print("Loading SmolLM2-135M-Instruct and the reward head ...")
    model, tokenizer = load_language_model("smollm2-demo")
    head = load_reward_head(arguments.head)
    parameters = sum(parameter.numel() for parameter in head.parameters())
    console.print(f"The head has {parameters:,} parameters, the language model {model.num_parameters():,}.")
    # Another seed than the card's evaluation, so that the demo does not repeat it
    sampling = SamplingArguments(seed=1)
    show_one_question(model, tokenizer, head, console, sampling)
    show_many_questions(model, tokenizer, head, console, sampling, "test", arguments.questions)


if __name__ == "__main__":
    main()
