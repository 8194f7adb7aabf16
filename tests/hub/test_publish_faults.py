"""Failures while publishing: either the whole head is published or nothing, and errors are one line."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import hf_xet
import pytest
from hub_client import HubClient
from hub_server import Fault

from hf_elhsr import publish
from hf_elhsr.hub import write_card, write_custom_generate

SHIPPED = Path(__file__).parents[2] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    """One that may write."""
    client = HubClient(hub.url, tmp_path_factory.mktemp("home"), HF_TOKEN="hf_writer")
    yield client
    client.close()


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(SHIPPED, tmp_path / "head"))


def change(folder):
    """Something in it; a card with numbers of the former limits would be refused."""
    (folder / "limits.md").write_text("New words.\n")
    write_card(folder)


def published(folder, repo_id, **options):
    return publish(folder, repo_id, **options).oid


def published_by_xet(folder, repo_id, error):
    """With hf_xet failing by itself, or with this error, as it does in other versions or on other occasions."""
    with pytest.MonkeyPatch.context() as patches:
        if error is not None:
            patches.setattr("huggingface_hub._commit_api._upload_xet_files", Mock(side_effect=error("Task error: CAS")))
        publish(folder, repo_id)


def stored(hub, repo_id, revision="main"):
    files = hub.repositories[repo_id].revision(revision).files
    return {path: file.content for path, file in files.items() if path != ".gitattributes"}


@pytest.mark.parametrize(
    ("asked", "status", "kind", "words"),
    [
        ("commit", 401, "PermissionError", "hf auth login"),
        ("commit", 403, "PermissionError", "does not have this permission"),
        ("commit", 404, "FileNotFoundError", "Check the repository's name"),
        ("commit", 409, "ConnectionError", "try again"),
        ("commit", 418, "ConnectionError", "is unexpected"),
        ("commit", 429, "ConnectionError", "wait 7 seconds"),
        ("commit", 503, "ConnectionError", "itself has a problem"),
        ("preupload", 503, "ConnectionError", "itself has a problem"),
        ("validate-yaml", 503, "ConnectionError", "itself has a problem"),
        ("objects/batch", 403, "PermissionError", "does not have this permission"),
        ("/lfs/", 503, "ConnectionError", "itself has a problem"),
    ],
)
def test_refused_requests_leave_nothing_behind(hub, client, folder, asked, status, kind, words):
    repo_id = f"faults/{asked.strip('/').replace('/', '-')}-{status}"
    hub.large_files.clear()
    hub.fail(status, asked, times=100, methods=("POST", "PUT"), Retry_After="7")
    try:
        caught = client.error(published, folder, repo_id)
    finally:
        hub.faults.clear()
    assert kind in caught.types
    assert "\n" not in caught.text
    assert f"Could not publish {repo_id!r}: the Hub answered {status}, 'made to fail', to P" in caught.text
    assert words in caught.text
    assert stored(hub, repo_id) == {}


def test_a_failed_upload_is_reported_without_its_signature(hub, client, folder):
    hub.large_files.clear()
    hub.fail(403, "/lfs/", times=100, methods=("PUT",))
    try:
        caught = client.error(published, folder, "faults/put")
    finally:
        hub.faults.clear()
    assert "PermissionError" in caught.types
    assert f"Could not publish 'faults/put': the Hub answered 403, 'made to fail', to PUT {hub.url}/lfs/" in caught.text
    assert "signed" not in caught.text
    assert stored(hub, "faults/put") == {}


@pytest.mark.parametrize("error", [RuntimeError, ConnectionError, hf_xet.XetAuthenticationError, None])
def test_an_unreachable_storage_of_large_files(hub, xet_client, folder, error):
    hub.xet_endpoint = "http://127.0.0.1:9"
    try:
        caught = xet_client.error(published_by_xet, folder, "faults/storage", error)
    finally:
        hub.xet_endpoint = None
    assert "ConnectionError" in caught.types
    reason = "error sending request for url (http://127.0.0.1:9/" if error is None else "(Task error: CAS)"
    assert "Could not publish 'faults/storage': the Hub's storage could not be reached (" in caught.text
    assert reason in caught.text
    assert "Try again, or set HF_HUB_DISABLE_XET=1" in caught.text
    assert "\n" not in caught.text
    assert stored(hub, "faults/storage") == {}


def test_an_unreachable_hub(hub, client, folder):
    hub.stop()
    try:
        caught = client.error(published, folder, "faults/away")
    finally:
        hub.start()
    assert "ConnectionError" in caught.types
    assert "Could not publish 'faults/away': the Hub could not be reached" in caught.text
    assert "\n" not in caught.text


def test_a_commit_made_in_the_meantime_is_not_mixed_with_ours(hub, client, folder):
    repo_id = "faults/meanwhile"
    client(published, folder, repo_id)
    ours = stored(hub, repo_id)

    def meanwhile(answer):
        # After the Hub has answered which files exist already and need no upload
        hub.store(repo_id, {"model.safetensors": b"of somebody else"})
        return answer

    hub.faults.append(Fault(f"{repo_id}/preupload", ("POST",), 1, change=meanwhile))
    change(folder)
    caught = client.error(published, folder, repo_id)
    assert "the Hub answered 412" in caught.text
    assert "Another commit was made in the meantime" in caught.text
    assert stored(hub, repo_id) == ours | {"model.safetensors": b"of somebody else"}


def test_private_is_not_ignored_for_a_public_repository(hub, client, folder):
    hub.store("faults/public", {})
    caught = client.error(published, folder, "faults/public", private=True)
    assert "ValueError" in caught.types
    assert "already exists and is public" in caught.text
    assert stored(hub, "faults/public") == {}


def test_a_pull_request_and_a_further_commit_to_it(hub, client, folder):
    repo_id = "faults/proposed"
    client(published, folder, repo_id, create_pr=True)
    assert stored(hub, repo_id) == {}
    assert "model.safetensors" in stored(hub, repo_id, "refs/pr/1")
    change(folder)
    client(published, folder, repo_id, revision="refs/pr/1")
    assert stored(hub, repo_id, "refs/pr/1")["limits.md"] == b"New words.\n"
    assert stored(hub, repo_id) == {}


def test_a_users_own_code_is_not_discarded(hub, client, folder):
    (write_custom_generate(folder) / "mine.py").write_text("x = 1\n")
    caught = client.error(published, folder, "faults/own-code")
    assert "were not made by hf_elhsr (mine.py)" in caught.text
    assert "faults/own-code" not in hub.repositories


def test_a_killed_upload_leaves_nothing_behind(hub, client, folder, tmp_path):
    repo_id, killed = "faults/killed", []

    def kill(answer):
        # The weights have arrived, and the commit has not been asked for
        process.kill()
        killed.append(process.wait())
        return answer

    hub.store(repo_id, {})
    hub.large_files.clear()
    hub.faults.append(Fault("/lfs/", ("PUT",), 1, change=kill))
    kept = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_writer", "HF_HUB_DISABLE_XET": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "hf_elhsr.cli", "publish", str(folder), repo_id],
        env=kept | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    process.wait(timeout=120)
    deadline = time.monotonic() + 10
    while not killed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert killed == [-9]
    assert stored(hub, repo_id) == {}
    client(published, folder, repo_id)
    assert "model.safetensors" in stored(hub, repo_id)
