"""fit_ridge_path: logistic regression on many features, solved to its optimum, with the ridge that is best held out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers.utils.logging import tqdm

from .losses import binary_cross_entropy

#: Penalties that are tried, strongest first, each starting from the weights of the previous one.
RIDGES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
# If more iterations still lowered the training loss, the held-out loss would long have risen
_ITERATIONS = 100


@dataclass(frozen=True)
class LabelledRows:
    """Features with labels.

    Args:
        features: (rows, k) float32.
        labels: (rows,) float32, 0 or 1, or the probability of 1.
    """

    features: torch.Tensor
    labels: torch.Tensor


@dataclass
class RidgePath:
    """The weights that were found, for features before standardisation, and how they were found.

    Args:
        weight: (k,) float32.
        bias: Scalar.
        ridges: The penalties that were tried.
        train_loss, held_out_loss: For each of them, the mean loss over rows, in nats.
        ridge: The penalty whose weights were kept, with the lowest held-out loss.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    ridges: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    held_out_loss: list[float] = field(default_factory=list)
    ridge: float = float("nan")


def fit_ridge_path(
    train: LabelledRows, held_out: LabelledRows, description: str, ridges: Sequence[float] = RIDGES
) -> RidgePath:
    """Minimise mean BCE(y, w z + b) + ridge/2 |w|^2 for one ridge after the other, until the held-out loss rises.

    z are the features, standardised over the training rows; the standardisation is folded into the weights returned.

    Args:
        train, held_out: Features are standardised in place, since they may fill most of the memory.
        description: The title of the progress bar.

    Raises:
        ValueError: Features are not finite.
    """
    variance, mean = torch.var_mean(train.features, dim=0, correction=0)
    if not bool(torch.isfinite(variance).all()):
        raise ValueError("The recorded features contain NaN or infinity: sample again with the model in bfloat16.")
    std = variance.sqrt()
    # A feature that never varies has no information, and must not be scaled up
    scale = torch.where(std > 1e-6 * mean.abs() + 1e-12, 1 / std, 0.0)
    for rows in (train, held_out):
        rows.features.sub_(mean).mul_(scale)
    weight, bias = torch.zeros(len(mean)), torch.logit(train.labels.mean())
    path = RidgePath(weight, bias)
    progress = tqdm(ridges, desc=description, unit="ridge")
    for ridge in progress:
        weight, bias = solve_logistic(train, ridge, weight, bias)
        path.ridges.append(ridge)
        for rows, losses in ((train, path.train_loss), (held_out, path.held_out_loss)):
            losses.append(float(binary_cross_entropy(rows.features @ weight + bias, rows.labels)))
        progress.set_postfix(train=f"{path.train_loss[-1]:.4f}", held_out=f"{path.held_out_loss[-1]:.4f}")
        if path.held_out_loss[-1] > min(path.held_out_loss):
            break
        path.ridge, path.weight = ridge, weight * scale
        path.bias = bias - path.weight @ mean
    return path


def solve_logistic(
    rows: LabelledRows, ridge: float, weight: torch.Tensor, bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Minimise mean BCE(y, w z + b) + ridge/2 |w|^2 by L-BFGS, from the weights given.

    Args:
        rows: z and y.
        weight, bias: The start: (k,) and a scalar.

    Returns:
        w, (k,), and b, a scalar.
    """
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = binary_cross_entropy(rows.features @ weight + bias, rows.labels)
        loss = loss + 0.5 * ridge * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
