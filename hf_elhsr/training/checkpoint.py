"""TrainingState: everything that a training needs to resume after an epoch, in one safetensors file."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import logging

from .._files import write_arrays

logger = logging.get_logger(__name__)


@dataclass
class TrainingState:
    """The state of a training between two epochs.

    Args:
        tensors: By name: weights, averages, the optimizer's moments, the best weights and the random state.
        report: The training's report so far, as a dict.
    """

    tensors: dict[str, torch.Tensor]
    report: dict[str, Any]

    def save(self, file: Path, run: dict[str, Any]) -> None:
        """Write the file whole or not at all.

        Args:
            run: What identifies the training: its settings and rollouts.

        Raises:
            OSError: The file cannot be written, for example because the disk is full.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"run": json.dumps(run, sort_keys=True), "report": json.dumps(self.report), "sha256": self._digest()}
        write_arrays(file, {name: tensor.detach() for name, tensor in self.tensors.items()}, metadata)

    @classmethod
    def load(cls, file: Path, run: dict[str, Any]) -> "TrainingState | None":
        """The saved state of this training; None if there is none, or only that of a different training.

        Raises:
            ValueError: The file is damaged: names it, and says what to do.
        """
        if not file.is_file():
            return None
        try:
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata() or {}
                if metadata["run"] != json.dumps(run, sort_keys=True):
                    logger.warning(
                        f"{str(file)!r} is from a training with different settings or rollouts: overwriting it."
                    )
                    return None
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            state = cls(tensors, json.loads(metadata["report"]))
        except (SafetensorError, KeyError, ValueError, RecursionError) as error:
            raise cls.damaged(file, f"{type(error).__name__}: {error}") from error
        if metadata.get("sha256") != state._digest():
            raise cls.damaged(file, "its content does not match its digest")
        return state

    @staticmethod
    def damaged(file: Path, what: str) -> ValueError:
        """The error for a file that holds no state of a training."""
        return ValueError(f"The checkpoint {str(file)!r} is damaged ({what}): delete it, and train from the start.")

    def _digest(self) -> str:
        digest = hashlib.sha256(json.dumps(self.report).encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimizer's state by name; empty before its first step."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{name}": value for index, own in state.items() for name, value in own.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Load what [`optimizer_tensors`] returned."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            index, _, name = rest.partition(".")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors under `prefix.name`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under `prefix.name`, by name."""
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
