"""fit_combination: a learned combination of sources, from rewards and labels of other prompts."""

import numpy as np
import torch

from .combination import LearnedCombination
from .logistic import fit_logistic


def fit_combination(rewards: np.ndarray | torch.Tensor, labels: np.ndarray | torch.Tensor) -> LearnedCombination:
    """Logistic regression of the label on the sources' rewards, over all candidates of all prompts.

    Fit it on prompts that no source was trained on, else the one that learned them by heart gets all the weight.

    Args:
        rewards: (prompts, n, sources) float, an array or a tensor.
        labels: (prompts, n) bool, likewise.

    Raises:
        ValueError: Shapes that do not belong together, rewards that are not finite, or labels all of one class.
    """
    rewards, labels = (np.asarray(x.cpu() if isinstance(x, torch.Tensor) else x) for x in (rewards, labels))
    if rewards.ndim != 3 or rewards.shape[:2] != labels.shape:
        raise ValueError(
            f"Expected rewards (prompts, n, sources) and labels (prompts, n); got {rewards.shape} and {labels.shape}."
        )
    features = rewards.reshape(-1, rewards.shape[-1]).astype(np.float64)
    intercept, *weights = fit_logistic(features, labels.reshape(-1).astype(np.float64)).tolist()
    return LearnedCombination(tuple(weights), intercept)
