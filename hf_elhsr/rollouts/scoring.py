"""score_rollouts: a head's token rewards on stored rollouts, on which decisions are fitted and replayed."""

from pathlib import Path

import numpy as np
import torch

from ..decisions.scored_rollouts import ScoredRollouts
from ..head.configuration_elhsr import ElhsrConfig
from ..head.modeling_elhsr import ElhsrRewardHead
from ..head.token_outputs import Aggregation, TokenOutputs
from .rollout import Rollout, by_prompt
from .rollout_set import RolloutSet
from .shard_arrays import read_features, read_token_arrays


def score_rollouts(
    rollouts: RolloutSet, head: ElhsrRewardHead, prompts: list[str] | None = None, subsampled: bool = False
) -> "ScoredRollouts":
    """Score a rollout set that this head followed, or that has features the head can be applied to.

    Args:
        rollouts: The set.
        head: The reward head.
        prompts: Ids of the prompts to score, e.g. those held out in training. Default: all.
        subsampled: Accept rollouts of which some tokens were left out for a disk budget, and treat the recorded ones as
            all. Their rewards can be used, but nothing that counts tokens.

    Raises:
        ValueError: The rollouts were followed by a different head or have no token arrays, a prompt has no rollouts,
            prompts have different numbers of rollouts, or layers of the head were not recorded.
    """
    followed = rollouts.settings.get("head_sha256")
    if followed is not None and followed != head.digest():
        raise ValueError(f"The rollouts in {str(rollouts.folder)!r} were followed by another head: sample them again.")
    wanted = None if prompts is None else set(prompts)
    groups: list[tuple[list[Rollout], dict[str, np.ndarray]]] = []
    found: set[str] = set()
    for shard, file in rollouts.shards():
        for members in by_prompt(shard):
            if not subsampled and any(rollout.feature_tokens is not None for rollout in members):
                raise ValueError(
                    f"The rollouts in {str(rollouts.folder)!r} lack tokens that were left out for a disk budget: "
                    "sample them without one."
                )
            if wanted is None or members[0].problem in wanted:
                arrays = _token_arrays(members, file, head, rollouts.config)
                _check_rewards(members, arrays, file, head.aggregation)
                groups.append((members, arrays))
                found.add(members[0].problem)
    if wanted is not None and wanted != found:
        raise ValueError(f"{len(wanted - found)} of the {len(wanted)} prompts asked for have no rollouts.")
    sizes = sorted({len(members) for members, _ in groups})
    if len(sizes) != 1:
        raise ValueError(f"Expected prompts with the same number of rollouts each, got {sizes} in {rollouts.folder}.")
    return _padded(groups, head.config.eps)


def _token_arrays(
    members: list[Rollout], file: Path, head: ElhsrRewardHead, recorded: ElhsrConfig
) -> dict[str, np.ndarray]:
    """By name, (tokens of all members,) float32 each."""
    first = members[0].first_row
    own = slice(first, first + sum(rollout.num_rows for rollout in members))
    arrays = {name: array[own].numpy() for name, array in read_token_arrays(file).items()}
    if "token_rewards" not in arrays:
        features = read_features(file)[own]
        columns = head.config.columns_in(recorded)
        # For all layers, these are the mapped features themselves, not a copy
        features = features[:, columns[0]] if len(columns) == 1 else torch.cat([features[:, c] for c in columns], dim=1)
        outputs = head.frozen("cpu")(features)
        computed = {"token_rewards": outputs.rewards, "token_gates": outputs.gates, "token_values": outputs.values}
        arrays |= {name: array.numpy() for name, array in computed.items() if array is not None}
    return arrays


def _check_rewards(members: list[Rollout], arrays: dict[str, np.ndarray], file: Path, aggregation: Aggregation) -> None:
    """Refuse token arrays of different rollouts, whose number or rewards differ from what was recorded."""
    lengths = [rollout.num_rows for rollout in members]
    fits = all(len(array) == sum(lengths) for array in arrays.values())
    if fits:
        parts = (torch.from_numpy(arrays[name]).double().split(lengths) for name in ("token_rewards", "token_gates"))
        for rollout, rewards, gates in zip(members, *parts, strict=True):
            sums = aggregation.summands(TokenOutputs(rewards, gates)).sum(dim=0)
            expected = float(aggregation.rewards(sums))
            fits &= rollout.reward is None or bool(np.isclose(rollout.reward, expected, rtol=1e-3, atol=1e-3))
    if not fits:
        raise ValueError(
            f"The token arrays in {str(file)!r} do not belong to the .jsonl of the same name. Delete both, and run the "
            "command that sampled them again, which samples only this shard."
        )


def _padded(groups: list[tuple[list[Rollout], dict[str, np.ndarray]]], eps: float) -> ScoredRollouts:
    lengths = np.array([[rollout.num_rows for rollout in members] for members, _ in groups])
    labels = np.array([[rollout.correct for rollout in members] for members, _ in groups])
    sampled = np.arange(lengths.max()) < lengths[..., None]
    names = set.intersection(*(set(arrays) for _, arrays in groups))
    padded = {}
    for name in names:
        padded[name] = np.zeros(sampled.shape, dtype=np.float32)
        padded[name][sampled] = np.concatenate([arrays[name] for _, arrays in groups])
    return ScoredRollouts(lengths=lengths, labels=labels, eps=eps, **padded)
