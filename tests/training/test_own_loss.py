"""A loss from outside the package: one entry in LOSSES makes it known to training, checkpoints and the model card."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from planted_rollouts import auc_on, planted_rollouts
from trained_heads import train_head

from hf_elhsr import ElhsrConfig
from hf_elhsr._files import write_text
from hf_elhsr.hub.card import render_card
from hf_elhsr.training import LOSSES, Loss, RewardHeadTrainingArguments

SHIPPED = Path(__file__).parents[2] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
SETTINGS = RewardHeadTrainingArguments(learning_rate=0.02, weight_decay=0.01, max_epochs=6)


def brier(rewards, labels, prompts):
    return (torch.sigmoid(rewards) - labels).square().mean()


@pytest.fixture
def own_loss(monkeypatch):
    monkeypatch.setitem(LOSSES, "brier", Loss("Brier's score", brier))
    return "brier"


def test_an_own_loss_trains_a_head(tmp_path, own_loss):
    settings = dataclasses.replace(SETTINGS, loss=own_loss)
    head, report = train_head(planted_rollouts(tmp_path / "train"), settings)
    assert min(report.held_out_loss) < report.base_rate
    assert auc_on(head, planted_rollouts(tmp_path / "unseen", seed=1)) > 0.9


def test_the_card_names_an_own_loss(tmp_path, own_loss, monkeypatch):
    rollouts = planted_rollouts(tmp_path / "train")
    rollouts.config = ElhsrConfig(**rollouts.config.to_diff_dict() | {"base_model": "org/model"})
    settings = dataclasses.replace(SETTINGS, loss=own_loss)
    head, report = train_head(rollouts, settings)
    folder = tmp_path / "head"
    head.save_pretrained(folder)
    record = json.loads((SHIPPED / "training.json").read_text())
    record = {
        "rollouts": record["rollouts"],
        "settings": dataclasses.asdict(settings),
        "report": dataclasses.asdict(report),
    }
    write_text(folder / "training.json", json.dumps(record))
    evaluation = json.loads((SHIPPED / "evaluation" / "test.json").read_text())
    (folder / "evaluation").mkdir()
    write_text(folder / "evaluation" / "test.json", json.dumps(evaluation | {"head_sha256": head.digest()}))
    assert "Brier's score" in render_card(folder)
    # A process that has not imported the loss can still write the card
    monkeypatch.delitem(LOSSES, own_loss)
    assert "The loss `brier`" in render_card(folder)
