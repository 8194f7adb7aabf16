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
def test_a_generated_card_loads_the_head_from_its_repository(folder, made_for):
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


@pytest.mark.parametrize("made_for", ["path/to/head", "path/to/elsewhere", "org/other"])
def test_a_users_own_card_is_kept_and_loads_the_head_from_its_repository(folder, made_for):
    words = f'## What I think of it\n\nMuch: of 12.0 [11.3, 12.7] % in "path/to/mine", {made_for}.\n\n## Limits'
    own = render_card(folder, made_for).replace("## Limits", words)
    (folder / "README.md").write_text(own)
    # Another repository that the card names is meant
    expected = own if made_for == "org/other" else own.replace(f'"{made_for}"', '"org/name"')
    assert card(folder) == expected
    assert expected.count('"org/name"') == (0 if made_for == "org/other" else 2)


def test_a_users_own_card_with_different_line_breaks(folder):
    own = render_card(folder).replace('    reward_head="path/to/head",', '    reward_head = "path/to/head"')
    (folder / "README.md").write_text(own)
    assert card(folder) == own.replace('"path/to/head"', '"org/name"')


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
        (
            "value: 37.2",
            "value: 73.2",
            r"claim .*'value': 73.2, .*'split': 'test'.* which no file of evaluation/ reports",
        ),
        ("split: unseen_templates", "split: other", r"claim .*'value': 26.0, .*'split': 'other'.*: nothing\)"),
        ("---\n", "", r"base_model None and tags None"),
        ("value: 37.2", "value: '37.2'", r"'value': '37.2'.* \(on this dataset: .*'value': 37.2"),
        ("type: accuracy\n      value: 37.2", "type: exact_match\n      value: 99.9", r"claim .*exact_match"),
        ("low: 35.0", "low: 37.0", r"'low': 37.0"),
        ("best-of-8 accuracy", "best-of-2 accuracy", "claim .*best-of-2 accuracy"),
        ("of 2000 prompts", "of 200000 prompts", "claim .*of 200000 prompts"),
        ("      name: best-of-8 accuracy, %, of 2000 prompts\n", "", "which no file of evaluation"),
        ("    metrics:\n", "    metrics:\n    - type: f1\n      value: 100\n", "claim .*'f1', 'value': 100"),
        ("    metrics:\n", "    source:\n      url: https://x\n    metrics:\n", "which no file of evaluation"),
        ("  results:\n", "  result:\n", r"`model-index` .* is not one \(KeyError: 'results'\)"),
        ("\n    metrics:", "\n    metrics: 5\n    other:", r"`model-index` .* is not one \(TypeError"),
        (
            "**37.2 [",
            "**97.2 [",
            r"README\.md reports '97\.2 \[35\.0, 39\.4\]', which none of the head's records has: correct",
        ),
        ("## Limits", "It has 99.0 % [98.0,\n99.9] elsewhere.\n\n## Limits", r"reports '99\.0 % "),
    ],
)
def test_a_card_that_hides_the_head_or_claims_too_much(folder, before, after, message):
    own = render_card(folder)
    assert before in own
    (folder / "README.md").write_text(own.replace(before, after, 1))
    with pytest.raises(ValueError, match=message):
        card(folder)


def test_a_card_without_training_cannot_claim_more(folder):
    (folder / "training.json").unlink()
    own = f"---\nbase_model:\n- {BASE_MODEL}\ntags:\n- elhsr\n---\n# Mine: 37.2 [35.0, 39.4]\n"
    (folder / "README.md").write_text(own)
    assert card(folder) == own
    (folder / "README.md").write_text(own.replace("37.2", "47.2"))
    with pytest.raises(ValueError, match=r"reports '47\.2 \[35\.0, 39\.4\]'"):
        card(folder)


@pytest.mark.parametrize("written", ["license: mit\n", "license:\n- mit\n", ""])
def test_the_license_is_the_authors(folder, written):
    made = render_card(folder).replace("license: apache-2.0\n", written)
    (folder / "README.md").write_text(made)
    text = card(folder)
    assert text.partition("tags:")[0].count("license") == (1 if written else 0)
    assert written in text
    assert 'reward_head="org/name"' in text


def test_metadata_that_cannot_be_read(folder):
    (folder / "README.md").write_text("---\nbase_model: [\n---\n")
    with pytest.raises(ValueError, match=r"README\.md cannot be read"):
        card(folder)


def test_a_base_model_that_the_card_does_not_name(folder):
    (folder / "README.md").write_text(render_card(folder))
    config = json.loads((folder / "config.json").read_text()) | {"base_model": "org/other"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="found by their model, here 'org/other'"):
        card(folder)
