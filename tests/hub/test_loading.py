"""Heads are loaded over HTTP from a local Hub, by the unmodified client, in every way that there is."""

import pytest
from huggingface_hub import HfApi, snapshot_download
from loaded_heads import WAYS, contents, load, save_tiny_head

from hf_elhsr import ElhsrRewardHead
from hf_elhsr.head import files as files_of_heads
from hf_elhsr.head import modeling_elhsr
from hf_elhsr.head.loading import load_reward_head


def push(folder, repo_id):
    return ElhsrRewardHead.from_pretrained(folder).push_to_hub(repo_id, token="hf_writer").oid


def load_and_save(folder, *source, **options):
    ElhsrRewardHead.from_pretrained(*source, **options).save_pretrained(folder)


def asked_for_files(hub, method=""):
    """Their names; without a file that heads do not have, which AutoModel always looks for."""
    asked = [request.rpartition("/")[2] for request in hub.requests if request.startswith(method)]
    return [name for name in asked if name in ("config.json", "model.safetensors")]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return save_tiny_head(tmp_path_factory.mktemp("first"), seed=0)


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    return save_tiny_head(tmp_path_factory.mktemp("second"), seed=1)


@pytest.mark.parametrize("way", WAYS)
def test_loaded_once_and_then_from_the_cache(hub, client, first, way):
    repo_id = f"org/{way}"
    hub.store(repo_id, first[1])
    hub.requests.clear()
    assert client(load, way, repo_id) == (first[0], repo_id)
    assert asked_for_files(hub, "GET") == ["config.json", "model.safetensors"]
    assert client(load, way, repo_id) == (first[0], repo_id)
    assert asked_for_files(hub, "GET") == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("way", WAYS)
def test_from_the_cache_while_the_hub_is_away(hub, client, first, way):
    hub.store(f"org/away-{way}", first[1])
    # By another way, since heads of generate are loaded once per process
    client(load, "class", f"org/away-{way}")
    hub.stop()
    try:
        assert client(load, way, f"org/away-{way}")[0] == first[0]
    finally:
        hub.start()


def test_from_the_cache_offline(hub, client, hub_home, first):
    """In this process, in which HF_HUB_OFFLINE is set, and which knows nothing of the local Hub."""
    hub.store("org/offline", first[1])
    with pytest.raises(OSError, match=r"config\.json of the reward head 'org/offline' is not in the cache.*OFFLINE"):
        load("class", "org/offline", cache_dir=hub_home / "hub")
    client(load, "class", "org/offline")
    for way in ("class", "auto"):
        assert load(way, "org/offline", cache_dir=hub_home / "hub")[0] == first[0]


@pytest.mark.parametrize("way", ["class", "auto"])
def test_cache_dir_and_local_files_only(hub, client, first, tmp_path, way):
    hub.store(f"org/local-{way}", first[1])
    hub.requests.clear()
    caught = client.error(load, way, f"org/local-{way}", cache_dir=tmp_path, local_files_only=True)
    assert "OSError" in caught.types
    assert asked_for_files(hub) == []
    client(load, way, f"org/local-{way}", cache_dir=tmp_path)
    hub.requests.clear()
    assert client(load, way, f"org/local-{way}", cache_dir=tmp_path, local_files_only=True)[0] == first[0]
    assert asked_for_files(hub) == []
    assert len(list(tmp_path.glob("models--org--*/snapshots/*/model.safetensors"))) == 1


@pytest.mark.parametrize("kind", ["private", "gated"])
@pytest.mark.parametrize("way", ["class", "auto"])
def test_a_token_gives_access_to_private_heads(hub, client, first, kind, way):
    hub.store(f"org/{kind}-{way}", first[1], **{kind: True})
    for token in (None, "hf_unknown", *(["hf_reader"] if kind == "gated" else [])):
        assert "OSError" in client.error(load, way, f"org/{kind}-{way}", token=token).types
    token = {"private": "hf_reader", "gated": "hf_member"}[kind]
    assert client(load, way, f"org/{kind}-{way}", token=token)[0] == first[0]


def test_an_old_revision_after_a_new_one_was_pushed(hub, client, first, second, tmp_path):
    folders = {}
    for name, (_, files) in {"first": first, "second": second}.items():
        folders[name] = tmp_path / name
        folders[name].mkdir()
        for path, content in files.items():
            (folders[name] / path).write_bytes(content)
    old = client(push, folders["first"], "org/pushed")
    new = client(push, folders["second"], "org/pushed")
    assert old != new
    client(HfApi(token="hf_writer", endpoint=hub.url).create_branch, "org/pushed", branch="stable", revision=old)
    for way, source, options, expected in (
        ("class", "org/pushed", {"revision": old}, first),
        ("auto", "org/pushed", {"revision": old}, first),
        ("generate", f"org/pushed@{old}", {}, first),
        ("generate", "org/pushed@stable", {}, first),
        ("class", "org/pushed", {"revision": "stable"}, first),
        ("class", "org/pushed", {}, second),
        ("auto", "org/pushed", {"revision": "main"}, second),
        ("generate", "org/pushed", {}, second),
    ):
        assert client(load, way, source, **options)[0] == expected[0]
    for revision, (_, files) in {old: first, new: second}.items():
        client(load_and_save, tmp_path / revision, "org/pushed", revision=revision)
        assert contents(tmp_path / revision) == files
        folder = client(snapshot_download, "org/pushed", revision=revision, local_dir=tmp_path / f"all-{revision}")
        stored = hub.repositories["org/pushed"].revision(revision).files
        assert files.items() <= {path: file.content for path, file in stored.items()}.items()
        for path, file in stored.items():
            assert (tmp_path / folder / path).read_bytes() == file.content
    unknown = client.error(load, "class", "org/pushed", revision="nowhere")
    assert "OSError" in unknown.types
    assert "/org/pushed/resolve/nowhere/config.json was answered with 404 Not Found" in unknown.text


@pytest.mark.parametrize("way", ["class", "auto"])
def test_configuration_and_weights_are_of_one_commit(hub, client, first, second, way):
    repo_id = f"org/changing-{way}"
    repository = hub.store(repo_id, first[1])

    def push_meanwhile(content):
        hub.store(repo_id, {"model.safetensors": second[1]["model.safetensors"]})
        return content

    hub.change(f"/{repo_id}/resolve/", push_meanwhile, times=1)
    assert client(load, way, repo_id)[0] == first[0]
    assert [commit.message for commit in repository.commits[1:]] == ["by hand", "by hand"]
    assert client(load, way, repo_id)[0] == second[0]


@pytest.mark.parametrize("source", ["org/name/other", "no such folder", "org/-name-"])
def test_sources_that_are_not_repositories(source):
    with pytest.raises(OSError, match=f"'{source}' is neither a local folder nor a repository's id"):
        load("class", source)


@pytest.mark.parametrize(
    "revision", ["/etc/passwd", "../../secret", "a/../b", "a//b", "-x", "a b", "a:b", "..", ".", 3]
)
def test_revisions_that_are_paths_are_refused_before_anything_is_opened(monkeypatch, revision):
    monkeypatch.setattr(files_of_heads, "hf_hub_download", None)
    with pytest.raises(ValueError, match="expected the name of a branch or tag, or a commit's hash"):
        ElhsrRewardHead.from_pretrained("org/name", revision=revision)
    if isinstance(revision, str):
        with pytest.raises(ValueError, match="expected the name of a branch or tag"):
            load_reward_head(f"org/name@{revision}")


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "refs/pr/3", "feature/fast_head-2", "0" * 40])
def test_revisions_that_git_allows(revision):
    files_of_heads.check_revision(revision)


@pytest.mark.parametrize("way", WAYS)
def test_a_git_lfs_pointer_in_place_of_weights(tmp_path, way):
    save_tiny_head(tmp_path, seed=0)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 143216\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    with pytest.raises(ValueError, match=r"model.safetensors' is a Git LFS pointer .*`git lfs pull`"):
        load(way, tmp_path)


def test_a_head_that_is_saved_meanwhile_is_read_again(tmp_path, monkeypatch):
    """Between its configuration and its weights, or just before the files of an interrupted save are moved."""
    save_tiny_head(tmp_path, seed=0)
    expected = []
    check_weights = files_of_heads.check_weights

    def save_meanwhile(file, shapes):
        if not expected:
            expected.append(save_tiny_head(tmp_path, seed=1)[0])
        check_weights(file, shapes)

    monkeypatch.setattr(modeling_elhsr, "check_weights", save_meanwhile)
    assert load("class", tmp_path)[0] == expected[0]
