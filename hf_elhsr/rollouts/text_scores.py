"""score_rollout_texts: a text reward model's scores of stored rollouts."""

import hashlib
import json
import math
from pathlib import Path

from transformers.utils.logging import tqdm

from .._files import write_text
from ..generation.reward_sources import TextScorer, text_scores
from .rollout import by_prompt
from .rollout_set import RolloutSet, owning_rollouts


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
        ValueError: The prompt of a rollout is missing, the scorer does not return one finite score per rollout, kept
            scores are damaged, or another process is writing into the folder.
    """
    if name is None:
        return _score(rollouts, prompts, scorer, name)
    with owning_rollouts(rollouts.folder):
        return _score(rollouts, prompts, scorer, name)


def _score(
    rollouts: RolloutSet, prompts: dict[str, str], scorer: TextScorer, name: str | None
) -> dict[str, list[float]]:
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
            scores |= _kept_scores(kept, asked)
            continue
        own = {
            problem: text_scores(scorer, [prompt] * len(texts), texts).tolist()
            for problem, (prompt, texts) in asked.items()
        }
        if name is not None:
            write_text(kept, json.dumps({"scorer": name, "scores": own}) + "\n")
        scores |= own
    return scores


def _kept_scores(file: Path, asked: dict[str, tuple[str, list[str]]]) -> dict[str, list[float]]:
    """The scores in a file, which has them for exactly these texts.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        scores = {
            problem: [float(score) for score in own] for problem, own in json.loads(file.read_text())["scores"].items()
        }
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise _damaged(file, f"{type(error).__name__}: {error}") from error
    if {problem: len(own) for problem, own in scores.items()} != {
        name: len(texts) for name, (_, texts) in asked.items()
    }:
        raise _damaged(file, "it has scores of other rollouts")
    if not all(math.isfinite(score) for own in scores.values() for score in own):
        raise _damaged(file, "a score is NaN or infinite")
    return scores


def _damaged(file: Path, what: str) -> ValueError:
    return ValueError(
        f"{str(file)!r} does not hold the scores of a text reward model ({what}): delete it, and run the same command "
        "again, which scores only these texts."
    )
