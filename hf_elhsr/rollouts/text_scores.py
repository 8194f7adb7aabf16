"""score_texts: what a text reward model says of stored rollouts."""

import hashlib
import json

import torch
from tqdm.auto import tqdm

from ..rewards.text_reward_model import TextScorer
from .rollout_set import RolloutSet, by_prompt, write_text


def score_texts(
    rollouts: RolloutSet, prompts: dict[str, str], scorer: TextScorer, name: str | None = None
) -> dict[str, list[float]]:
    """Score every rollout by its text, a prompt at a time, in the order of the set.

    Args:
        prompts: By the problem's id, the prompt as the language model saw it.
        name: Of the scorer. Scores are then kept in the rollouts' folder, shard by shard, and what is kept under this
            name is not scored again. Default: keep nothing.

    Returns:
        By the problem's id, the scores of its rollouts.

    Raises:
        ValueError: A rollout whose prompt is not given, another number of scores than rollouts, or one that is not
            finite.
    """
    key = None if name is None else hashlib.sha256(name.encode()).hexdigest()[:16]
    scores: dict[str, list[float]] = {}
    shards = list(rollouts.shards())
    for members, file in tqdm(shards, desc="Scoring texts", unit="shard"):
        kept = None if key is None else file.with_name(f"text-scores-{key}-{file.stem}.json")
        if kept is not None and kept.is_file():
            scores |= json.loads(kept.read_text())["scores"]
            continue
        own = {}
        for group in by_prompt(members):
            problem = group[0].problem
            if problem not in prompts:
                raise ValueError(f"The prompt of problem {problem!r} is not given: pass those that were sampled.")
            said = scorer([prompts[problem]] * len(group), [rollout.text for rollout in group])
            checked = torch.as_tensor(said, dtype=torch.float64)
            if checked.shape != (len(group),) or not bool(torch.isfinite(checked).all()):
                raise ValueError(
                    f"Expected {len(group)} finite scores for problem {problem!r}, got {checked.tolist()}."
                )
            own[problem] = checked.tolist()
        if kept is not None:
            write_text(kept, json.dumps({"scorer": name, "scores": own}) + "\n")
        scores |= own
    return scores
