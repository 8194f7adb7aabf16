"""Heads push themselves, with what the folder that they were loaded from knows of them: over real HTTP."""

import os
import shutil
from pathlib import Path

import pytest
from hub_client import HubClient
from loaded_heads import contents

from hf_elhsr import ElhsrRewardHead
from hf_elhsr.hub import write_custom_generate
from hf_elhsr.hub.card import render_card
from hf_elhsr.hub.custom_generate import custom_generate_files
from tiny_models import tiny_head, tiny_model

SHIPPED = Path(__file__).parents[2] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    """One that may write."""
    client = HubClient(hub.url, tmp_path_factory.mktemp("home"), HF_TOKEN="hf_writer")
    yield client
    client.close()


@pytest.fixture
def folder(tmp_path):
    """The shipped head as this version saves it, so that it is saved alike when it is pushed."""
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "head"))
    ElhsrRewardHead.from_pretrained(folder).save_pretrained(folder)
    (folder / "README.md").write_text(render_card(folder))
    write_custom_generate(folder)
    return folder


def push(folder, repo_id, change=0.0, **settings):
    head = ElhsrRewardHead.from_pretrained(folder)
    head.bias.data += change
    head.push_to_hub(repo_id, **settings)


def push_from_beside(folder, repo_id):
    """Loaded by a relative path, from which the process has moved on."""
    before = os.getcwd()
    try:
        os.chdir(folder.parent)
        head = ElhsrRewardHead.from_pretrained(folder.name)
        os.chdir(folder)
        head.push_to_hub(repo_id)
    finally:
        os.chdir(before)


def push_made_here(repo_id, seed=0):
    tiny_head(tiny_model(), seed=seed).push_to_hub(repo_id)


def save_and_push(source, folder, **settings):
    ElhsrRewardHead.from_pretrained(source).save_pretrained(folder, push_to_hub=True, **settings)


def stored(hub, repo_id):
    return {path: file.content for path, file in hub.repositories[repo_id].files.items() if path != ".gitattributes"}


def test_with_the_card_and_the_records_of_its_folder(hub, client, folder):
    client(push, folder, "pushing/whole", commit_message="Mine")
    assert [commit.message for commit in hub.repositories["pushing/whole"].commits[1:]] == ["Mine"]
    files, own = stored(hub, "pushing/whole"), contents(folder)
    assert files.keys() == own.keys()
    # These two know where they are
    assert {path for path in own if files[path] != own[path]} == {"README.md", "custom_generate/generate.py"}
    assert files["README.md"].decode() == render_card(folder, "pushing/whole")


def test_its_folder_is_found_from_another_working_directory(hub, client, folder):
    client(push_from_beside, folder, "pushing/moved")
    assert stored(hub, "pushing/moved")["README.md"].decode() == render_card(folder, "pushing/moved")


def test_changed_weights_do_not_get_its_card(hub, client, folder):
    caught = client.error(push, folder, "pushing/changed", change=1.0)
    assert "ValueError" in caught.types
    assert "is of another head" in caught.text
    assert "pushing/changed" not in hub.repositories


def test_a_head_in_memory_leaves_a_card_unchanged(hub, client):
    hub.store("pushing/bare", {"README.md": b"# Mine\n"})
    client(push_made_here, "pushing/bare")
    code = {f"custom_generate/{name}" for name in custom_generate_files("pushing/bare")}
    files = stored(hub, "pushing/bare")
    assert files.keys() == {"config.json", "model.safetensors", "README.md"} | code
    assert files["README.md"] == b"# Mine\n"
    assert len(hub.repositories["pushing/bare"].commits) == 3


@pytest.mark.parametrize(
    "record",
    ["README.md", "training.json", "evaluation/test.json", "tradeoff/test.json", ".eval_results/gsm8k.yaml"],
)
def test_a_head_in_memory_does_not_inherit_results_of_other_weights(hub, client, folder, record):
    repo_id = f"pushing/measured-{record.strip('.').replace('/', '-')}"
    client(push_made_here, repo_id)
    content = {"README.md": render_card(folder).encode(), ".eval_results/gsm8k.yaml": b"[]"}.get(record, b"{}")
    hub.store(repo_id, {record: content})
    before = stored(hub, repo_id)
    caught = client.error(push_made_here, repo_id, seed=1)
    assert "ValueError" in caught.types
    assert f"{repo_id!r} has results of different weights ({record})" in caught.text
    assert "or push it to another repository" in caught.text
    assert stored(hub, repo_id) == before
    # Its own results stay
    client(push_made_here, repo_id)
    assert stored(hub, repo_id) == before


def test_save_pretrained_with_push_to_hub_keeps_the_card(hub, client, folder, tmp_path):
    before = contents(folder)
    client(save_and_push, folder, folder, repo_id="pushing/saved", commit_message="Saved")
    assert contents(folder) == before
    assert [commit.message for commit in hub.repositories["pushing/saved"].commits[1:]] == ["Saved"]
    assert stored(hub, "pushing/saved")["README.md"].decode() == render_card(folder, "pushing/saved")
    # Another repository has no card, and gets none
    client(save_and_push, folder, tmp_path / "elsewhere", repo_id="pushing/elsewhere")
    assert "README.md" not in stored(hub, "pushing/elsewhere")
    assert contents(tmp_path / "elsewhere").keys() == {"config.json", "model.safetensors"}
