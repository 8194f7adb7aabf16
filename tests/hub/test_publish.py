"""Heads are published over HTTP to a local Hub, by the unmodified client."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_client import HubClient

from hf_elhsr import ElhsrRewardHead, publish
from hf_elhsr.hub import write_card, write_custom_generate
from hf_elhsr.hub.card import render_card
from hf_elhsr.hub.custom_generate import custom_generate_files
from hf_elhsr.hub.publish import published_files

SHIPPED = Path(__file__).parents[2] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    """One that may write."""
    client = HubClient(hub.url, tmp_path_factory.mktemp("home"), HF_TOKEN="hf_writer")
    yield client
    client.close()


@pytest.fixture
def folder(tmp_path):
    """The shipped head's, with the code that `hf-elhsr card` builds."""
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "head"))
    write_custom_generate(folder)
    return folder


def change(folder):
    """Something in it; a card with numbers of the former limits would be refused."""
    (folder / "limits.md").write_text("Other limits.\n")
    write_card(folder)


def published(folder, repo_id, **options):
    return publish(folder, repo_id, **options).oid


def pushed(folder, repo_id, **options):
    return ElhsrRewardHead.from_pretrained(folder).push_to_hub(repo_id, **options).oid


def weight_sum(repo_id, revision=None):
    head = ElhsrRewardHead.from_pretrained(repo_id, revision=revision)
    return sum(float(parameter.double().sum()) for parameter in head.parameters())


def stored(hub, repo_id, revision="main"):
    files = hub.repositories[repo_id].revision(revision).files
    return {path: file.content for path, file in files.items() if path != ".gitattributes"}


def test_everything_in_one_commit(hub, client, folder):
    oid = client(published, folder, "org/head")
    repository = hub.repositories["org/head"]
    assert [commit.message for commit in repository.commits] == ["initial commit", "Upload reward head"]
    assert repository.branches == {"main": oid}
    files = stored(hub, "org/head")
    assert files.pop("README.md").decode() == render_card(folder, "org/head")
    own = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    code = {path for path in own if path.startswith("custom_generate/")}
    assert {path: content for path, content in files.items() if path not in code} == {
        path: content for path, content in own.items() if path not in code | {"README.md"}
    }
    assert {path.removeprefix("custom_generate/") for path in code} == custom_generate_files("org/head").keys()
    assert b"PUBLISHED_AS: str | None = 'org/head'\n" in files["custom_generate/generate.py"]
    # The folder itself is as it was, and says nothing of where it was published
    assert own["README.md"] == (SHIPPED / "README.md").read_bytes()
    assert b"PUBLISHED_AS: str | None = None\n" in own["custom_generate/generate.py"]


def test_each_revision_stays(hub, client, folder):
    first = client(published, folder, "org/twice")
    before = stored(hub, "org/twice")
    head = ElhsrRewardHead.from_pretrained(folder)
    head.bias.data += 1
    head.save_pretrained(folder)
    for records in ("evaluation", "tradeoff"):
        shutil.rmtree(folder / records)
    (folder / "README.md").write_text(f"---\nbase_model: {BASE_MODEL}\ntags: [elhsr]\n---\n")
    second = client(published, folder, "org/twice", commit_message="Another one")
    assert stored(hub, "org/twice", first) == before
    # They were of the other head
    assert not [path for path in stored(hub, "org/twice") if path.startswith(("evaluation/", "tradeoff/"))]
    assert client(weight_sum, "org/twice", first) == pytest.approx(client(weight_sum, "org/twice") - 2, abs=1e-6)
    assert [commit.sha for commit in hub.repositories["org/twice"].commits][1:] == [first, second]


def test_code_that_is_no_longer_needed_is_deleted(hub, client, folder):
    hub.store("org/old", {"custom_generate/older.py": b"1", "custom_generate/generate.py": b"2", "notes.txt": b"3"})
    client(published, folder, "org/old")
    files = stored(hub, "org/old")
    assert "custom_generate/older.py" not in files
    assert files["notes.txt"] == b"3"
    assert len(hub.repositories["org/old"].commits) == 3


def test_private_and_branches(hub, client, folder):
    client(published, folder, "org/private", private=True)
    assert hub.repositories["org/private"].private
    change(folder)
    oid = client(published, folder, "org/private", revision="trial")
    assert hub.repositories["org/private"].branches["trial"] == oid
    assert hub.repositories["org/private"].branches["main"] != oid


@pytest.mark.parametrize("way", [published, pushed])
def test_missing_permissions_are_reported(hub, client, folder, way):
    for token, status in (("hf_reader", 403), (False, 401)):
        caught = client.error(way, folder, f"org/refused-{way.__name__}", token=token)
        assert "OSError" in caught.types
        assert "\n" not in caught.text
        assert f"Could not publish 'org/refused-{way.__name__}': the Hub answered {status}, " in caught.text
        assert "token" in caught.text
    assert f"org/refused-{way.__name__}" not in hub.repositories


@pytest.mark.parametrize("status", [404, 409, 429, 500])
def test_a_failed_commit_changes_nothing(hub, client, folder, status):
    repo_id = f"org/fails-{status}"
    client(published, folder, repo_id)
    before = stored(hub, repo_id)
    change(folder)
    # More often than the client tries
    hub.fail(status, "/commit/", times=50, methods=("POST",))
    try:
        caught = client.error(published, folder, repo_id)
    finally:
        hub.faults.clear()
    assert "OSError" in caught.types
    assert f"Could not publish {repo_id!r}: the Hub answered {status}, " in caught.text
    assert f"to POST {hub.url}/api/models/{repo_id}/commit/main." in caught.text
    assert stored(hub, repo_id) == before


def test_no_card_no_head_no_base_model(folder, tmp_path, caplog):
    (folder / "notes.bin").write_bytes(b"x")
    assert "notes.bin" not in published_files(folder, "org/head")
    (folder / "README.md").rename(folder / "card.md")
    with pytest.raises(ValueError, match=r"has no README\.md: write a card"):
        published_files(folder, "org/head")
    (folder / "card.md").rename(folder / "README.md")
    for base_model in (None, "rollouts/model/here", "./model", str(tmp_path)):
        config = json.loads((folder / "config.json").read_text()) | {"base_model": base_model}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match='to that id, "org/name", and save the head again'):
            published_files(folder, "org/head")
    with pytest.raises(OSError, match=r"(model.safetensors|config.json)"):
        published_files(tmp_path, "org/head")


def test_records_of_another_head_are_refused(folder):
    head = ElhsrRewardHead.from_pretrained(folder)
    head.weight.data *= 2
    head.save_pretrained(folder)
    with pytest.raises(ValueError, match="is of another head than the one in"):
        published_files(folder, "org/head")


def test_results_on_a_benchmark_are_listed_on_its_page(folder):
    assert not [path for path in published_files(folder, "org/head") if path.startswith(".eval_results")]
    file = folder / "evaluation" / "test.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"task": "gsm8k", "prompts": 1319}))
    (folder / "README.md").unlink()
    shutil.rmtree(folder / "tradeoff")
    write_card(folder)
    files = published_files(folder, "org/head")
    [entry] = yaml.safe_load(files[".eval_results/gsm8k.yaml"])
    accuracy = json.loads(file.read_text())["accuracy"]["reward head"]["value"]
    assert entry["dataset"] == {"id": "openai/gsm8k", "task_id": "gsm8k"}
    assert entry["value"] == pytest.approx(100 * accuracy, abs=0.005)
    assert entry["notes"].startswith("best of 8 samples")
    # A result on a part of the benchmark does not count
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prompts": 400}))
    write_card(folder)
    assert not [path for path in published_files(folder, "org/head") if path.startswith(".eval_results")]


def test_the_command(hub, folder, tmp_path):
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_writer"}

    def run(*arguments, **changes):
        return subprocess.run(
            [sys.executable, "-m", "hf_elhsr.cli", *arguments],
            env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "HF_HUB_DISABLE_XET": "1", **environment, **changes},
            capture_output=True,
            text=True,
        )

    done = run("publish", str(folder), "org/by-command", "--private", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["repo_id"] == "org/by-command"
    assert answer["revision"] == hub.repositories["org/by-command"].branches["main"]
    assert hub.repositories["org/by-command"].private
    refused = run("publish", str(folder), "org/by-command", HF_TOKEN="hf_reader")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("Error: Could not publish 'org/by-command': the Hub answered 403")
