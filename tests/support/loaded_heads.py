"""Heads saved and loaded in every way that there is, by functions that another process can call."""

from pathlib import Path

import torch
from transformers import AutoModel

from hf_elhsr import ElhsrRewardHead
from hf_elhsr.head.loading import load_reward_head
from tiny_models import tiny_head, tiny_model

#: By its class, by AutoModel, and as `reward_head=` of generate
WAYS = {"class": ElhsrRewardHead.from_pretrained, "auto": AutoModel.from_pretrained, "generate": load_reward_head}


def load(way, source, **options):
    """The head's weights, and where it says that it comes from."""
    head = WAYS[way](source, **options)
    assert type(head) is ElhsrRewardHead
    assert head.weight.dtype == torch.float32
    return head.weight.tolist(), head.name_or_path


def save_tiny_head(folder, seed):
    """Its weights, and the contents of its files."""
    head = tiny_head(tiny_model(), seed=seed)
    head.save_pretrained(folder)
    return head.weight.tolist(), contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
