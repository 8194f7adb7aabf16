"""What does training on stored features save? Writes training_speed.json.

The same rollouts, held-out prompts and number of epochs, in three ways, each in a process of its own:

- "default" and "paper": `RewardHeadTrainer` on the features that sampling stored, with the preset of this name.
- "published": the paper's own procedure as described, reimplemented: in every epoch the frozen language model runs
  over every prompt and completion, 16 rollouts at a time, and AdamW steps on what it shows.

The last takes hours for 40 epochs, so only `--published-epochs` of them run, and the time of all is extrapolated.
"""

import argparse
import dataclasses
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from hf_elhsr._files import write_text
from hf_elhsr.models import load_language_model
from hf_elhsr.rollouts import Rollout, RolloutSet, encode_prompts
from hf_elhsr.tasks import ArithmeticTask
from hf_elhsr.training import PRESETS, RewardHeadTrainer
from hf_elhsr.training.data import PromptGroups

BATCH = 16


def first_prompts(folder: Path, prompts: int, view: Path) -> RolloutSet:
    """Make a set of only the first prompts: links to their shards, and the settings with their number."""
    settings = RolloutSet(folder).settings
    size = settings["sampling"]["prompts_per_batch"]
    if prompts % size or prompts > settings["prompts"]:
        raise ValueError(f"--prompts {prompts}: expected a multiple of {size}, of at most {settings['prompts']}.")
    write_text(view / "settings.json", json.dumps(settings | {"prompts": prompts}))
    for shard in range(prompts // size):
        for name in (f"shard-{shard:05d}.jsonl", f"shard-{shard:05d}.safetensors"):
            (view / name).symlink_to((folder / name).resolve())
    return RolloutSet(view)


def on_stored_features(rollouts: RolloutSet, preset: str, epochs: int) -> dict[str, Any]:
    # Never stopped early, so that all do the same number of epochs
    settings = dataclasses.replace(PRESETS[preset], max_epochs=epochs, patience=epochs)
    start = time.perf_counter()
    report = RewardHeadTrainer(rollouts, settings).train()
    return {
        "epochs": epochs,
        "seconds": time.perf_counter() - start,
        "extrapolated": False,
        "held_out_loss": report.held_out_loss,
    }


class Published:
    """The published procedure: nothing is stored, the language model runs again and again."""

    def __init__(self, rollouts: RolloutSet, model: Any, tokenizer: Any):
        settings, config = rollouts.settings, rollouts.config
        problems = ArithmeticTask().problems(settings["split"], settings.get("skip", 0) + settings["prompts"])
        self.model, self.layers = model, config.layers
        self.prompts = {
            problem.id: encode_prompts(tokenizer, [problem.question])["input_ids"][0] for problem in problems
        }
        self.head = torch.nn.Linear(config.num_features, 2)
        self.optimizer = torch.optim.AdamW(self.head.parameters(), lr=1e-4, weight_decay=1e-5)

    def loss(self, rollouts: list[Rollout]) -> torch.Tensor:
        """Compute the mean binary cross-entropy of R, from one forward pass of the language model."""
        completions = [torch.tensor(rollout.token_ids) for rollout in rollouts]
        rows = [torch.cat([self.prompts[r.problem], ids]) for r, ids in zip(rollouts, completions, strict=True)]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        place = torch.arange(ids.shape[1])
        ends = torch.tensor([len(row) for row in rows])[:, None]
        completion = (place < ends) & (place >= ends - torch.tensor([len(own) for own in completions])[:, None])
        with torch.no_grad():
            states = self.model(
                input_ids=ids,
                attention_mask=(place < ends).long(),
                output_hidden_states=True,
                use_cache=False,
                logits_to_keep=1,
            ).hidden_states
            features = torch.cat([states[layer] for layer in self.layers], dim=-1)[completion].float()
        gates, rewards = self.head(features).unbind(-1)
        gates = torch.sigmoid(gates)
        rollout = completion.nonzero()[:, 0]
        zeros = torch.zeros(len(rollouts))
        reward = zeros.index_add(0, rollout, gates * rewards) / zeros.index_add(0, rollout, gates).clamp_min(1e-8)
        return F.binary_cross_entropy_with_logits(reward, torch.tensor([float(r.correct) for r in rollouts]))

    def train(self, train: list[Rollout], held_out: list[Rollout], epochs: int) -> list[float]:
        """Train, and return the held-out loss after every epoch."""
        losses = []
        generator = torch.Generator().manual_seed(0)
        for epoch in range(epochs):
            order = torch.randperm(len(train), generator=generator).split(BATCH)
            for batch in tqdm(order, desc=f"Epoch {epoch + 1}", unit="batch"):
                self.optimizer.zero_grad()
                self.loss([train[i] for i in batch]).backward()
                self.optimizer.step()
            with torch.no_grad():
                batches = [held_out[first : first + BATCH] for first in range(0, len(held_out), BATCH)]
                losses.append(sum(float(self.loss(batch)) * len(batch) for batch in batches) / len(held_out))
        return losses


def published(rollouts: RolloutSet, epochs: int, run_epochs: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model, tokenizer = load_language_model("smollm2-demo", rollouts.settings["dtype"])
    groups = PromptGroups(rollouts)
    _, held_out = groups.split(PRESETS["paper"].held_out, PRESETS["paper"].seed)
    by_side: tuple[list[Rollout], list[Rollout]] = ([], [])
    for rollout in rollouts.rollouts():
        by_side[rollout.problem in set(held_out)].append(rollout)
    start = time.perf_counter()
    losses = Published(rollouts, model, tokenizer).train(*by_side, run_epochs)
    seconds = time.perf_counter() - start
    return {
        "epochs": epochs,
        "seconds": seconds / run_epochs * epochs,
        "extrapolated": run_epochs < epochs,
        "measured_epochs": run_epochs,
        "measured_seconds": seconds,
        "held_out_loss": losses,
    }


def run_way(way: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run one way in this process; its peak memory is that of this way alone, mapped features included."""
    with tempfile.TemporaryDirectory() as folder:
        rollouts = first_prompts(args.rollouts, args.prompts, Path(folder))
        if way == "published":
            result = published(rollouts, args.epochs, min(args.published_epochs, args.epochs))
        else:
            result = on_stored_features(rollouts, way, args.epochs)
    # In kilobytes on Linux
    return result | {"peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=Path, default=Path("rollouts/train"), help="arithmetic, by the demo's model")
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=PRESETS["paper"].max_epochs)
    parser.add_argument("--published-epochs", type=int, default=2, help="so many are run; the rest is extrapolated")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--way", choices=[*PRESETS, "published"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(run_way(args.way, args)))
        return
    ways = {}
    for way in [*PRESETS, "published"]:
        command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        ways[way] = json.loads(done.stdout.splitlines()[-1])
        print(way, json.dumps(ways[way]))
    size = RolloutSet(args.rollouts).settings["sampling"]["prompts_per_batch"]
    files = sorted(args.rollouts.glob("shard-*.safetensors"))[: args.prompts // size]
    result = {
        "question": "seconds, held-out loss and peak memory of training on stored features, against running the "
        "language model over every rollout in every epoch",
        "prompts": args.prompts,
        "rollouts": args.prompts * RolloutSet(args.rollouts).settings["sampling"]["n"],
        "stored_features_bytes": sum(file.stat().st_size for file in files),
        "machine": f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads",
        "held_out_loss": "one number an epoch that was run, binary cross-entropy in nats, on the same prompts",
        "peak_memory_mb": "largest resident set; of training on stored features most are pages of mapped files, which "
        "the system takes back when memory is short",
        "ways": ways,
    }
    write_text(args.out, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
