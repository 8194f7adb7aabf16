"""Files written whole or not at all: under another name first and then renamed, so that no partial file is left."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file


def write_arrays(file: Path, arrays: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all.

    Args:
        file: The path; a file of this name is replaced.
        arrays: Tensors by name, on any device.
        metadata: Texts for the file's header.

    Raises:
        OSError: The file cannot be written, e.g. on a full disk.
    """
    partial = file.with_name(file.name + ".partial")
    try:
        save_file({name: array.contiguous() for name, array in arrays.items()}, partial, metadata)
    except SafetensorError as error:
        raise OSError(
            f"{str(file)!r} cannot be written ({error}). If the disk is full, make room and run the same command "
            "again: it resumes after what was written before."
        ) from error
    os.replace(partial, file)


def write_text(file: Path, text: str) -> None:
    """Write a text file in UTF-8 whole or not at all; a file of this name is replaced."""
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)
