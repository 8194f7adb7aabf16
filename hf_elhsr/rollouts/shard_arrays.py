"""Reading the arrays of a shard: features, pooled features, token arrays. [`RolloutSet`] writes them."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

#: What is recorded of every token if a head follows the sampling: r_t, g_t, the language model's log p_t, and v_t for
#: heads that have it.
TOKEN_ARRAYS = ("token_rewards", "token_gates", "token_log_probabilities", "token_values")


def read_features(file: Path) -> torch.Tensor:
    """The features of a shard, (tokens, L * d), memory-mapped.

    Raises:
        ValueError: Features were not recorded, or the file is damaged.
    """
    return _read_array(file, "features", "these rollouts were sampled without features.")


def read_pooled_features(file: Path) -> torch.Tensor:
    """The pooled features of a shard's rollouts, (rollouts, L * d) float32.

    Raises:
        ValueError: Pooled features were not recorded or are not finite, or the file is damaged.
    """
    return _finite(_read_array(file, "pooled_features", "sample with `hf-elhsr sample --pooled-by HEAD`."), file)


def read_prefix_means(file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The prefix means of a shard's rollouts, (prefixes, L * d) float32, and the rollout of each, (prefixes,) long.

    Raises:
        ValueError: Prefix means were not recorded or are not finite, or the file is damaged.
    """
    advice = "sample with `hf-elhsr sample --pooled-by HEAD` of this version."
    means = _finite(_read_array(file, "prefix_means", advice), file)
    return means, _read_array(file, "prefix_rollouts", advice)


def read_token_arrays(file: Path) -> dict[str, torch.Tensor]:
    """Those of TOKEN_ARRAYS that were recorded in a shard, (tokens,) float32 each."""
    return _read_arrays(file, TOKEN_ARRAYS)


def not_finite(file: Path) -> ValueError:
    """The error for a shard whose features are not finite."""
    return ValueError(
        f"The features in {str(file)!r} contain NaN or infinity. If the model ran in float16, it overflowed: sample "
        "into another folder in bfloat16. Otherwise the file is damaged: delete it and the .jsonl of the same name, "
        "and run the command that sampled them again, which samples only this shard."
    )


def _finite(features: torch.Tensor, file: Path) -> torch.Tensor:
    if not bool(torch.isfinite(features).all()):
        raise not_finite(file)
    return features


def _read_array(file: Path, name: str, advice: str) -> torch.Tensor:
    array = _read_arrays(file, (name,)).get(name)
    if array is None and not file.is_file():
        raise ValueError(
            f"{str(file)!r} does not exist: {advice} If it was deleted, also delete the .jsonl of the same name, and "
            "run the command that sampled them again, which samples only this shard."
        )
    if array is None:
        raise ValueError(f"{str(file)!r} holds no {name.replace('_', ' ')}: {advice}")
    return array


def _read_arrays(file: Path, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    if not file.is_file():
        return {}
    try:
        with safe_open(file, framework="pt") as opened:
            present = set(opened.keys())
            return {name: opened.get_tensor(name) for name in names if name in present}
    except SafetensorError as error:
        raise ValueError(
            f"{str(file)!r} cannot be read ({error}): it is damaged or incomplete. Delete it and the .jsonl of the "
            "same name, and run the command that sampled them again, which samples only this shard."
        ) from error
