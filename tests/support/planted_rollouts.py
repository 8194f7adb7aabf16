"""Rollouts with features of every token, in which the label is planted along one direction."""

import numpy as np
import torch

from hf_elhsr import ElhsrConfig
from hf_elhsr.evaluation.metrics import area_under_curve
from hf_elhsr.rollouts import Rollout, RolloutSet
from hf_elhsr.training.data import PromptGroups
from hf_elhsr.training.trainer import batch_outputs


def planted_rollouts(
    folder,
    seed=0,
    prompts=120,
    n=6,
    signal=1.5,
    shuffle=False,
    poison=False,
    features_per_layer=8,
    longest=8,
    first=0,
    scales=(1e-2, 1e3),
    offset=500,
):
    """Synthetic features with a planted direction, at awkward scales, as hidden states have, unless given others."""
    rng = np.random.default_rng(seed)
    config = ElhsrConfig(hidden_size=features_per_layer, layers=[0, 1])
    rollouts = RolloutSet.create(
        folder, {"task": "planted", "split": "train", "seed": seed, "prompts": prompts}, config
    )
    width = 2 * features_per_layer
    direction = np.random.default_rng(42).normal(size=width)
    direction /= np.linalg.norm(direction)
    labels = rng.random(prompts * n) < 0.3
    shown = labels.copy()
    if shuffle:
        rng.shuffle(labels)
    for shard in range(4):
        rows, features = [], []
        for prompt in range(shard, prompts, 4):
            for candidate in range(n):
                number, length = prompt * n + candidate, int(rng.integers(2, longest + 1))
                noise = rng.normal(size=(length, width))
                noise += signal * (shown[number] - 0.3) * direction
                first_row = sum(len(f) for f in features)
                features.append(noise * np.geomspace(*scales, width) + np.linspace(-offset, offset, width))
                rows.append(
                    Rollout(
                        f"prompt-{first + prompt}", "t", [1] * length, "", None, bool(labels[number]), -1.0, first_row
                    )
                )
        stacked = torch.tensor(np.concatenate(features), dtype=torch.float32)
        if poison:
            stacked[5, 3] = float("nan")
        rollouts.write_shard(shard, rows, stacked)
    return rollouts


def auc_on(head, rollouts):
    """Area under the curve of a head's rewards against the labels of all rollouts."""
    groups = PromptGroups(rollouts)
    zeros, ones = torch.zeros(head.config.num_features), torch.ones(head.config.num_features)
    batches = [(batch_outputs(head, b, zeros, ones)[0].detach(), b.labels) for b in groups.batches(groups.prompts, 10)]
    rewards = torch.cat([rewards for rewards, _ in batches]).double().numpy()
    return area_under_curve(rewards, torch.cat([labels for _, labels in batches]).bool().numpy())
