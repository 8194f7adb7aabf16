"""feature_statistics: mean and spread of every feature over the training tokens, in one pass over the disk."""

import torch
from transformers.utils.logging import tqdm

from .prompt_groups import PromptGroups


def feature_statistics(
    groups: PromptGroups, prompts: list[str], prompts_per_batch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of every feature over the tokens of these prompts: two (L * d,) float32.

    The deviation of a feature that never varies is infinite, so that it counts for nothing.

    Raises:
        ValueError: A feature is NaN or infinite; the message names the file.
    """
    count = 0
    mean, squares = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for batch in tqdm(
        groups.batches(prompts, prompts_per_batch),
        desc="Standardising features",
        total=-(-len(prompts) // prompts_per_batch),
        unit="batch",
    ):
        # Merged batch by batch (Chan et al.): a plain sum of squares drowns features whose mean dwarfs their spread
        variance, batch_mean = torch.var_mean(batch.features, dim=0, correction=0)
        # A sum is NaN where a single number is, and is looked at in place of all of them
        if not bool(torch.isfinite(variance.sum() + batch_mean.sum())):
            batch.check_finite()
        new = len(batch.features)
        difference = batch_mean.double() - mean
        squares = squares + variance.double() * new + difference.square() * (count * new / (count + new))
        mean = mean + difference * (new / (count + new))
        count += new
    # A feature that never varies says nothing, and must not be blown up
    std = (squares / count).sqrt()
    return mean.float(), torch.where(std > 1e-6 * mean.abs() + 1e-12, std, torch.inf).float()
