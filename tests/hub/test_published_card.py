"""The card that a head is published with: its own, or written for the repository, never one that claims too much."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hf_elhsr.hub.card import render_card
from hf_elhsr.hub.publish import published_files

SHIPPED = Path(__file__).parents[2] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(SHIPPED, tmp_path / "head"))


def card(folder):
    return published_files(folder, "org/name")["README.md"].decode()


@pytest.mark.parametrize("made_for", [None, "path/to/elsewhere", "org/older"])
def test_a_made_card_loads_the_head_from_where_it_is(folder, made_for):
    (folder / "README.md").write_text(render_card(folder, made_for))
    text = card(folder)
    assert 'reward_head="org/name"' in text
    assert 'custom_generate="org/name"' in text
    assert "path/to" not in text
    data = ModelCard(text).data
    assert (data.base_model, data.library_name, data.license) == (BASE_MODEL, "hf-elhsr", "apache-2.0")
    assert data.pipeline_tag == "text-generation"
    assert {"elhsr", "signal:hidden_states"} <= set(data.tags)
    assert [(result.dataset_split, result.metric_value) for result in data.eval_results] == [
        ("test", 37.2),
        ("unseen_templates", 26.0),
    ]


def test_a_card_of_ones_own_is_kept(folder):
    own = render_card(folder).replace("## Limits", "## What I think of it\n\nMuch.\n\n## Limits")
    (folder / "README.md").write_text(own)
    assert card(folder) == own


def test_a_card_without_records_is_kept(folder):
    (folder / "training.json").unlink()
    shutil.rmtree(folder / "evaluation")
    own = f"---\nbase_model:\n- {BASE_MODEL}\ntags:\n- elhsr\n---\n# Mine\n"
    (folder / "README.md").write_text(own)
    assert card(folder) == own


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("- elhsr\n", "", "heads are found by their model"),
        (f"base_model: {BASE_MODEL}", "base_model: org/other", r"have base_model 'org/other'"),
        ("value: 37.2", "value: 73.2", r"claim 73.2% on 'arithmetic', split 'test', which is in no file"),
        ("split: unseen_templates", "split: other", r"claim 26.0% on 'arithmetic', split 'other'"),
        ("---\n", "", r"base_model None and tags None"),
    ],
)
def test_a_card_by_which_it_would_not_be_found_or_that_claims_too_much(folder, before, after, message):
    own = render_card(folder)
    assert before in own
    (folder / "README.md").write_text(own.replace(before, after, 1))
    with pytest.raises(ValueError, match=message):
        card(folder)


def test_metadata_that_cannot_be_read(folder):
    (folder / "README.md").write_text("---\nbase_model: [\n---\n")
    with pytest.raises(ValueError, match=r"README\.md cannot be read"):
        card(folder)


def test_a_base_model_that_the_card_does_not_name(folder):
    (folder / "README.md").write_text(render_card(folder))
    config = json.loads((folder / "config.json").read_text()) | {"base_model": "org/other"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="found by their model, 'org/other'"):
        card(folder)
