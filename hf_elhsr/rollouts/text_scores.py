"""score_rollout_texts: a text reward model's scores of stored rollouts."""

import hashlib
import json

from transformers.utils.logging import tqdm

from .._files import write_text
from ..generation.reward_sources import TextScorer, text_scores
from .rollout import by_prompt
from .rollout_set import RolloutSet


def score_rollout_texts(
    rollouts: RolloutSet, prompts: dict[str, str], scorer: TextScorer, name: str | None = None
) -> dict[str, list[float]]:
    """Score every rollout by its text, a prompt at a time, in the order of the set.

    Args:
        rollouts: The set.
        prompts: By the problem's id, the prompt as the language model read it, see [`prompt_texts`].
        scorer: The text reward model.
        name: The scorer's name. With it, scores are kept in the rollouts' folder, shard by shard, and texts that
            already have scores under this name are not scored again. Default: keep nothing.

    Returns:
        By the problem's id, the scores of its rollouts.

    Raises:
        ValueError: The prompt of a rollout is missing, or the scorer does not return one finite score per rollout.
    """
    scores: dict[str, list[float]] = {}
    shards = [list(by_prompt(members)) for members, _ in rollouts.shards()]
    for groups in tqdm(shards, desc="Scoring texts", unit="shard"):
        asked = {}
        for group in groups:
            problem = group[0].problem
            if problem not in prompts:
                raise ValueError(f"The prompt of problem {problem!r} is missing: pass those that were sampled.")
            asked[problem] = (prompts[problem], [rollout.text for rollout in group])
        # The hash includes the texts, since a shard may have been sampled again
        key = hashlib.sha256(json.dumps([name, asked]).encode()).hexdigest()
        kept = rollouts.folder / f"text-scores-{key[:32]}.json"
        if name is not None and kept.is_file():
            scores |= json.loads(kept.read_text())["scores"]
            continue
        own = {
            problem: text_scores(scorer, [prompt] * len(texts), texts).tolist()
            for problem, (prompt, texts) in asked.items()
        }
        if name is not None:
            write_text(kept, json.dumps({"scorer": name, "scores": own}) + "\n")
        scores |= own
    return scores
