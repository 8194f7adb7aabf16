"""Fine-tune a text reward model on the rollouts that a head was trained on: the usual practice, to compare with.

    python examples/fine_tune_text_reward_model.py rollouts/train reward-model --prompts 400
    hf-elhsr evaluate rollouts/test --model smollm2-demo --head my-head --text-reward-model reward-model

The language model itself gets a classification head of one label and is trained as a whole with binary cross-entropy,
on the prompts that `hf-elhsr train --prompts 400` trains on; the epoch that is best on its held-out prompts is kept.
The same command resumes a run that was killed. 400 prompts with 8 rollouts each take about half an hour on two CPU
cores that support bfloat16. For rollouts of your own prompts, pass the options that they were sampled with, such as
`--task prompts.jsonl --verifier mine.py:check`.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hf_elhsr import RolloutSet, Task, find_task
from hf_elhsr.evaluation import area_under_curve
from hf_elhsr.models import DEMO_MODEL, demo_model_folder
from hf_elhsr.rollouts import by_prompt, prompt_texts
from hf_elhsr.training import PromptGroups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rollouts", type=Path, help="a folder by `hf-elhsr sample`")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default=DEMO_MODEL)
    parser.add_argument("--task", help="the task with the prompts that were sampled; default: by its recorded name")
    parser.add_argument("--verifier", help="for your own prompts, the one that they were sampled with")
    parser.add_argument("--prompts", type=int, help="train on the first N prompts; default: all")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    rollouts = RolloutSet(args.rollouts)
    task = find_task(args.task or rollouts.settings["task"], args.verifier)
    record = fine_tune(rollouts, args.out, args.model, args.prompts, args.epochs, args.learning_rate, args.batch, task)
    print(json.dumps(record["log"][-3:], indent=2))


def fine_tune(
    rollouts: RolloutSet,
    out: Path,
    model_name: str,
    prompts: int | None = None,
    epochs: int = 2,
    learning_rate: float = 2e-5,
    batch: int = 16,
    task: Task | None = None,
) -> dict[str, Any]:
    """Train the classifier into the folder `out`, and return the record that is also written there.

    Args:
        task: The task with the prompts of the rollouts. Default: the one that they were sampled with, by its name.
    """
    run = {
        "model": model_name,
        "rollouts": rollouts_digest(rollouts),
        "prompts": prompts,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch": batch,
    }
    begun = out / "run.json"
    if begun.is_file() and json.loads(begun.read_text()) != run:
        raise ValueError(
            f"{str(out)!r} was begun with different settings, {begun.read_text().strip()}: choose another folder."
        )
    out.mkdir(parents=True, exist_ok=True)
    write_whole(begun, json.dumps(run) + "\n")
    source = str(demo_model_folder()) if model_name == DEMO_MODEL else model_name
    train, held_out, tokenizer = examples(rollouts, source, prompts, task or find_task(rollouts.settings["task"]))
    # The new classification head is drawn before the Trainer seeds anything
    set_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=1, problem_type="multi_label_classification", dtype=torch.float32
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    arguments = TrainingArguments(
        output_dir=str(out / "checkpoints"),
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        warmup_steps=20,
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=batch,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        seed=0,
        # Mixed precision: the weights stay float32
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=held_out,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda said: {
            "area_under_curve": area_under_curve(said.predictions.reshape(-1), said.label_ids.reshape(-1) > 0.5)
        },
    )
    folder = out / "checkpoints"
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))
    record = {
        **run,
        "train_rollouts": len(train),
        "held_out_rollouts": len(held_out),
        "seconds_since_last_start": time.perf_counter() - start,
        "log": trainer.state.log_history,
    }
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(out)
    tokenizer.save_pretrained(out)
    write_whole(out / "training.json", json.dumps(record, indent=2) + "\n")
    return record


def write_whole(file: Path, text: str) -> None:
    """Write a file whole or not at all, so that a killed run leaves no half of it."""
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def rollouts_digest(rollouts: RolloutSet) -> str:
    """SHA-256 of everything that is learned from: prompts, completions and labels."""
    learned = [(rollout.problem, rollout.token_ids, rollout.label) for rollout in rollouts.rollouts()]
    return hashlib.sha256(str(learned).encode()).hexdigest()


def last_whole_checkpoint(folder: Path) -> str | None:
    """Find the newest checkpoint, except one that was being written when the run was killed."""
    # The state is written last
    whole = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]))) if whole else None


def examples(rollouts: RolloutSet, model: str, prompts: int | None, task: Task) -> tuple[list[Any], list[Any], Any]:
    """Return token ids and labels of the head's training prompts and held-out prompts, and the tokenizer."""
    rollouts.check_complete()
    settings = rollouts.settings
    groups = PromptGroups(rollouts, first=prompts)
    train, held_out = groups.split(held_out=0.2, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="right")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    skip = settings.get("skip", 0)
    problems = task.problems(settings["split"], skip + settings["prompts"])[skip:]
    asked = prompt_texts(tokenizer, problems)
    wanted = {problem: part for part, own in enumerate((train, held_out)) for problem in own}
    if unknown := wanted.keys() - asked.keys():
        raise ValueError(
            f"{len(unknown)} prompts of {str(rollouts.folder)!r} are not prompts of the task {task.name!r}: pass the "
            "prompts that were sampled."
        )
    parts: tuple[list[Any], list[Any]] = ([], [])
    for shard, _ in rollouts.shards():
        for members in by_prompt(shard):
            problem = members[0].problem
            if problem not in wanted:
                continue
            for rollout in members:
                # As TextRewardModel reads it
                ids = tokenizer(asked[problem] + rollout.text, add_special_tokens=False)["input_ids"]
                parts[wanted[problem]].append({"input_ids": ids, "labels": [float(rollout.correct)]})
    return *parts, tokenizer


if __name__ == "__main__":
    main()
