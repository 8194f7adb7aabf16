"""How far are rewards while decoding from re-scored ones, in float32 and bfloat16? Writes bfloat16.json.

SmolLM2-135M-Instruct with the shipped head, unseen prompts of the arithmetic task; re-scoring is one plain forward
pass per candidate (`head.score`) with the model in the same dtype, and in float32.
"""

import json
import platform
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from hf_elhsr import ElhsrRewardHead
from hf_elhsr.models import load_language_model
from hf_elhsr.rollouts import SamplingArguments, encode_prompts
from hf_elhsr.tasks import ArithmeticTask

HEAD = Path(__file__).parents[1] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
PROMPTS = 16


def rescore(model, head, inputs, out) -> np.ndarray:
    prompt = inputs["input_ids"].shape[1]
    rewards = np.empty(tuple(out.lengths.shape))
    for row, column in np.ndindex(*rewards.shape):
        start = int((inputs["attention_mask"][row] == 0).sum())
        ids = out.candidates[row, column, start : prompt + int(out.lengths[row, column])][None]
        mask = torch.zeros_like(ids)
        mask[:, prompt - start :] = 1
        rewards[row, column] = float(head.score(model, ids, mask)[0])
    return rewards


def main() -> None:
    head = ElhsrRewardHead.from_pretrained(HEAD)
    problems = ArithmeticTask().problems("test", PROMPTS)
    settings = SamplingArguments()
    models = {dtype: load_language_model("smollm2-demo", dtype) for dtype in ("float32", "bfloat16")}
    rows = []
    for dtype, (model, tokenizer) in models.items():
        differences: dict[str, list[np.ndarray]] = {"same dtype": [], "float32": []}
        same_winner = []
        for first in tqdm(range(0, PROMPTS, 8), desc=dtype):
            inputs = encode_prompts(tokenizer, [p.question for p in problems[first : first + 8]]).to(model.device)
            torch.manual_seed(first)
            out = model.generate(
                **inputs, best_of_n=8, reward_head=head, return_dict_in_generate=True, **settings.generate_kwargs()
            )
            rewards = out.rewards.double().numpy()
            for against, name in ((model, "same dtype"), (models["float32"][0], "float32")):
                rescored = rescore(against, head, inputs, out)
                differences[name].append(np.abs(rescored - rewards) / np.maximum(1, np.abs(rescored)))
            same_winner.append(rescored.argmax(-1) == rewards.argmax(-1))
        for name, values in differences.items():
            flat = np.concatenate(values).ravel()
            rows.append(
                {
                    "decoding": dtype,
                    "rescored_in": dtype if name == "same dtype" else name,
                    "candidates": len(flat),
                    "median_difference": float(np.median(flat)),
                    "p95_difference": float(np.quantile(flat, 0.95)),
                    "max_difference": float(flat.max()),
                }
            )
        rows[-1]["same_winner_share"] = float(np.concatenate(same_winner).mean())
    result = {
        "question": "|R while decoding - R re-scored| / max(1, |R|)",
        "prompts": PROMPTS,
        "machine": f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads",
        "rows": rows,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
