"""convert_published: make a head from weights saved by the paper's own code (aster2024/SWIFT on GitHub)."""

import copy
import os
from pathlib import Path

import torch

from .._checks import quoted, shortened
from .configuration_elhsr import ElhsrConfig
from .modeling_elhsr import ElhsrRewardHead

# Whether a published model has a gate, by the name of its layer
_LAYERS = {"fused_layer": True, "reward_layer": False}


def convert_published(file: str | os.PathLike[str], config: ElhsrConfig) -> ElhsrRewardHead:
    """Make the head that has the rewards of a `.pt` file of the published code.

    In both, row 0 is the gate and row 1 the reward, and features are the hidden states of the layers in ascending
    order, embeddings included. Weights trained with `--apply_norm` or `--logits_mode` read different features. Do not
    convert the former, which cannot be recognised; the latter are refused for their width. No code in the file is run.

    Args:
        file: A state dict saved by `train/extract_train.py`.
        config: The configuration for the language model and the layers of the training, from
            [`ElhsrConfig.for_model`]; `gate` is taken from the file.

    Raises:
        ValueError: The file does not exist, holds something else, or has a different width.
    """
    path = Path(file)
    layer, tensors = _read(path)
    weight, bias = tensors[f"{layer}.weight"].float(), tensors[f"{layer}.bias"].float()
    rows = 2 if _LAYERS[layer] else 1
    if weight.shape != (rows, config.num_features) or bias.shape != (rows,):
        raise ValueError(
            f"{str(path)!r} has weights of shape {tuple(weight.shape)}, but {len(config.layers)} layers of width "
            f"{config.hidden_size} need ({rows}, {config.num_features}): pass the model and the layers it was trained "
            "on."
        )
    if not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        raise ValueError(f"The weights in {str(path)!r} contain NaN or infinity.")
    config = copy.deepcopy(config)
    config.gate, config.value = _LAYERS[layer], False
    head = ElhsrRewardHead(config)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return head.eval()


def check_published(file: str | os.PathLike[str]) -> None:
    """Refuse a file that [`convert_published`] refuses for any language model.

    Raises:
        ValueError: The file does not exist, or holds something else.
    """
    _read(Path(file))


def _read(path: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """The name of the layer in a file, and its weight and bias by their names there."""
    if not path.is_file():
        raise ValueError(f"{str(path)!r} does not exist: expected a .pt file of the published code.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler has many errors for damaged files
        raise ValueError(
            f"{str(path)!r} is not a plain file of weights ({type(error).__name__}); no code in it was run: "
            f"{shortened(str(error))}"
        ) from error
    tensors = _tensors(state)
    found = [layer for layer in _LAYERS if tensors.keys() == {f"{layer}.weight", f"{layer}.bias"}]
    if not found:
        raise ValueError(
            f"{str(path)!r} holds {quoted(sorted(tensors)) if tensors else type(state).__name__}, expected the weight "
            "and bias of 'fused_layer' or 'reward_layer'."
        )
    [layer] = found
    return layer, tensors


def _tensors(state: object) -> dict[str, torch.Tensor]:
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        return {}
    # torch.nn.DataParallel adds this prefix
    return {str(name).removeprefix("module."): value for name, value in state.items()}
