"""Fine-tune a text reward model on the rollouts that a head was trained on: the usual practice, to compare with.

    python examples/fine_tune_text_reward_model.py rollouts/train reward-model --prompts 400
    hf-elhsr evaluate rollouts/test --model smollm2-demo --head my-head --text-reward-model reward-model

The language model itself gets a classification head of one label and is trained as a whole with binary cross-entropy,
on the prompts that `hf-elhsr train --prompts 400` trains on; of the epochs the one that is best on its held-out prompts
is kept. A run that was killed goes on with the same command. At the pace of a short run, 400 prompts with 8 rollouts
each take about an hour on two CPU cores.
"""

import argparse
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
)
from transformers.trainer_utils import get_last_checkpoint

from hf_elhsr.cli.demo_model import DEMO_MODEL, demo_model_folder
from hf_elhsr.evaluation.calibration import area_under_curve
from hf_elhsr.rollouts import RolloutSet, encode_prompts
from hf_elhsr.rollouts.rollout_set import by_prompt, write_text
from hf_elhsr.rollouts.tasks import find_task
from hf_elhsr.training.prompt_groups import PromptGroups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rollouts", type=Path, help="made by `hf-elhsr sample`")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default=DEMO_MODEL)
    parser.add_argument("--prompts", type=int, help="the first so many prompts; default: all")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    rollouts = RolloutSet(args.rollouts)
    source = str(demo_model_folder()) if args.model == DEMO_MODEL else args.model
    train, held_out, tokenizer = examples(rollouts, source, args.prompts)
    model = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=1, problem_type="multi_label_classification", dtype=torch.float32
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    arguments = TrainingArguments(
        output_dir=str(args.out / "checkpoints"),
        num_train_epochs=args.epochs,
        learning_rate=args.learning_rate,
        warmup_steps=20,
        per_device_train_batch_size=args.batch,
        per_device_eval_batch_size=args.batch,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        seed=0,
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
    folder = args.out / "checkpoints"
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=get_last_checkpoint(folder) if folder.is_dir() else None)
    record = {
        "rollouts": rollouts.settings["prompts_sha256"],
        "train_rollouts": len(train),
        "held_out_rollouts": len(held_out),
        "epochs": args.epochs,
        "learning_rate": args.learning_rate,
        "batch": args.batch,
        "seconds_since_last_start": time.perf_counter() - start,
        "log": trainer.state.log_history,
    }
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    write_text(args.out / "training.json", json.dumps(record, indent=2) + "\n")
    print(json.dumps(trainer.state.log_history[-3:], indent=2))


def examples(rollouts: RolloutSet, model: str, prompts: int | None) -> tuple[list[Any], list[Any], Any]:
    """Token ids and labels of the head's training prompts and held-out prompts, and the tokenizer."""
    rollouts.check_complete()
    settings = rollouts.settings
    groups = PromptGroups(rollouts, first=prompts)
    train, held_out = groups.split(held_out=0.2, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="right")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    skip = settings.get("skip", 0)
    problems = find_task(settings["task"]).problems(settings["split"], skip + settings["prompts"])[skip:]
    questions = {problem.id: problem.question for problem in problems}
    wanted = {problem: part for part, own in enumerate((train, held_out)) for problem in own}
    parts: tuple[list[Any], list[Any]] = ([], [])
    for shard, _ in rollouts.shards():
        for members in by_prompt(shard):
            problem = members[0].problem
            if problem not in wanted:
                continue
            prompt = tokenizer.decode(encode_prompts(tokenizer, [questions[problem]])["input_ids"][0])
            for rollout in members:
                # As TextRewardModel reads it
                ids = tokenizer(prompt + rollout.text, add_special_tokens=False)["input_ids"]
                parts[wanted[problem]].append({"input_ids": ids, "labels": [float(rollout.right)]})
    return *parts, tokenizer


if __name__ == "__main__":
    main()
