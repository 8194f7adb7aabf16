"""convert_published: a head from the weights that the paper's own code saves (aster2024/SWIFT on GitHub)."""

import copy
import os
from pathlib import Path

import torch

from .configuration_elhsr import ElhsrConfig
from .modeling_elhsr import ElhsrRewardHead

# By the name of the published model's layer: whether it has a gate
_LAYERS = {"fused_layer": True, "reward_layer": False}


def convert_published(file: str | os.PathLike[str], config: ElhsrConfig) -> ElhsrRewardHead:
    """The head whose rewards are those of a `.pt` file of the published code.

    There, too, row 0 is the gate and row 1 the reward, and features are the hidden states of the layers in ascending
    order, embeddings included. Weights trained with `--apply_norm` or `--logits_mode` read other features: the first
    cannot be told from the file, so leave them alone; the second do not fit in width. The file is read without running
    code from it.

    Args:
        file: A state dict, as `train/extract_train.py` saves it.
        config: Of the language model and layers it was trained on, from [`ElhsrConfig.for_model`]; `gate` is set as
            the file has it.

    Raises:
        ValueError: The file is not there, holds something else, or is of another width.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is not there: expected a .pt file of the published code.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler stumbles over a damaged file in many ways
        raise ValueError(
            f"{str(path)!r} is no plain file of weights ({type(error).__name__}); it was not run: {error}"
        ) from error
    tensors = _tensors(state)
    found = [layer for layer in _LAYERS if tensors.keys() == {f"{layer}.weight", f"{layer}.bias"}]
    if not found:
        raise ValueError(
            f"{str(path)!r} holds {sorted(tensors) or type(state).__name__}, expected the weight and bias of "
            "'fused_layer' or 'reward_layer'."
        )
    [layer] = found
    weight, bias = tensors[f"{layer}.weight"].float(), tensors[f"{layer}.bias"].float()
    rows = 2 if _LAYERS[layer] else 1
    if weight.shape != (rows, config.num_features) or bias.shape != (rows,):
        raise ValueError(
            f"{str(path)!r} has weights of shape {tuple(weight.shape)}, but {len(config.layers)} layers of width "
            f"{config.hidden_size} need ({rows}, {config.num_features}): name the model and the layers it was trained "
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


def _tensors(state: object) -> dict[str, torch.Tensor]:
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        return {}
    # As torch.nn.DataParallel names them
    return {str(name).removeprefix("module."): value for name, value in state.items()}
