"""Failures while loading from the Hub end in a retry that works, or in an error that says what failed."""

import json
import pickle
import resource

import pytest
from loaded_heads import WAYS, load, save_tiny_head

from hf_elhsr.head.files import storage_fault

#: Where a file of a head is asked for, and where a large one then lies
PLACES = ("/config.json", "/model.safetensors", "/lfs/")
DAMAGE = {
    "cut short": lambda content: content[:-100],
    "empty": lambda content: b"",
    "a pickle": lambda content: pickle.dumps({"weight": 1}),
    "a header without end": lambda content: b"\xff" * 8 + content[8:],
}


def measured_load(way, source):
    """The error, and by how many MiB this process's largest size has grown."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        load(way, source)
    except ValueError as error:
        return str(error), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return None


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    return save_tiny_head(tmp_path_factory.mktemp("head"), seed=0)


@pytest.fixture
def repository(hub, head):
    """Makes one with the head's files, or others in their place, and says its id; with no fault after the test."""

    def make(**changes):
        files = {**head[1], **{name.replace("__", "."): content for name, content in changes.items()}}
        repo_id = f"org/head-{len(hub.repositories)}"
        hub.store(repo_id, {name: content for name, content in files.items() if content is not None})
        hub.requests.clear()
        return repo_id

    yield make
    hub.faults.clear()


def changed_config(head, **changes):
    return json.dumps(json.loads(head[1]["config.json"]) | changes).encode()


# --------------------------------------------------------------------------- that pass


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("status", "place", "times"),
    [(429, "/config.json", 3), (503, "/config.json", 3), (500, "/model.safetensors", 3), (429, "/lfs/", 2)],
)
def test_temporary_failures_are_retried(hub, client, repository, head, way, status, place, times):
    repo_id = repository()
    client.waits()
    hub.fail(status, place, times, **({"Retry_After": "7"} if status == 429 else {}))
    assert client(load, way, repo_id)[0] == head[0]
    # With a second of the client's own for rounding
    assert client.waits()[-2:] == ([8.0, 8.0] if status == 429 else [1, 2])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["/config.json", "/lfs/"])
def test_a_connection_cut_in_mid_file_is_resumed(hub, client, repository, head, way, place):
    repo_id = repository()
    hub.cut(place, after=100, times=2)
    assert client(load, way, repo_id)[0] == head[0]
    assert sum(fault.times for fault in hub.faults) == 0


# --------------------------------------------------------------------------- that last


ADVICE = {401: "log in", 403: "request access", 404: "Check the repository's name", 429: "and try again."}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_permanent_failures_are_reported(hub, client, repository, head, place, status):
    repo_id = repository()
    hub.fail(status, place, times=10**6)
    # What AutoModel says of config.json is transformers' own
    for way in WAYS if place != "/config.json" else ("class", "generate"):
        caught = client.error(load, way, repo_id)
        assert {"generate": "ValueError"}.get(way, "OSError") in caught.types
        address = {"/lfs/": "http://localhost:"}.get(place, f"{hub.url}/{repo_id}/resolve/")
        for part in (
            f"reward head '{repo_id}'",
            address,
            f"was answered with {status} ",
            "(made to fail)",
            ADVICE.get(status, "try again later."),
        ):
            assert part in caught.text
        assert "\n" not in caught.text
    hub.faults.clear()
    for way in WAYS:
        assert client(load, way, repo_id)[0] == head[0]


@pytest.mark.parametrize("place", ["/config.json", "/lfs/"])
def test_a_connection_cut_permanently_is_reported(hub, client, repository, head, place):
    repo_id = repository()
    hub.cut(place, after=0, times=10**6)
    for way in WAYS if place == "/lfs/" else ("class", "generate"):
        caught = client.error(load, way, repo_id)
        assert "ended in RemoteProtocolError: peer closed connection" in caught.text
        assert f"GET http://{'localhost' if place == '/lfs/' else '127.0.0.1'}:" in caught.text
        assert "pytorch_model.bin" not in caught.text
    hub.faults.clear()
    for way in WAYS:
        assert client(load, way, repo_id)[0] == head[0]


def test_an_unreachable_hub_is_reported(hub, client, repository):
    repo_id = repository()
    hub.stop()
    try:
        caught = client.error(load, "class", repo_id)
    finally:
        hub.start()
    assert f"HEAD {hub.url}/{repo_id}/resolve/main/config.json ended in ConnectError: " in caught.text


@pytest.mark.parametrize("way", WAYS)
def test_an_unreachable_storage_of_large_files_is_reported(hub, xet_client, repository, head, way):
    repo_id = repository()
    hub.xet_endpoint = "http://127.0.0.1:9"
    try:
        caught = xet_client.error(load, way, repo_id)
    finally:
        hub.xet_endpoint = None
    assert {"generate": "ValueError"}.get(way, "OSError") in caught.types
    assert (
        f"model.safetensors of the reward head '{repo_id}' could not be loaded: the Hub's storage could not be reached"
        in caught.text
    )
    assert "http://127.0.0.1:9/v2/reconstructions/" in caught.text
    assert "Try again, or set HF_HUB_DISABLE_XET=1" in caught.text
    assert "\n" not in caught.text
    assert xet_client(load, way, repo_id)[0] == head[0]


@pytest.mark.parametrize(
    "text", ["request for url (https://cas/x?X-Amz-Signature=secret) failed", "a https://cas/x?k=secret"]
)
def test_addresses_are_reported_without_their_signature(text):
    reported = storage_fault(RuntimeError(text))
    assert "https://cas/x" in reported
    assert "secret" not in reported
    assert ("failed" in reported) == ("failed" in text)


# --------------------------------------------------------------------------- incorrect contents


@pytest.mark.parametrize("place", ["/config.json", "/lfs/"])
def test_an_incorrect_checksum_at_the_correct_size(hub, client, repository, head, place):
    repo_id = repository()
    change = {"/lfs/": lambda content: content[:-4] + b"1234"}
    hub.change(place, change.get(place, lambda content: content.replace(b"1e-08", b"1e-07")))
    for way in WAYS:
        for _ in range(2):  # from the Hub, and from the cache
            caught = client.error(load, way, repo_id)
            assert "ValueError" in caught.types
            assert "does not match the Hub's hash: expected" in caught.text
            assert "force_download=True" in caught.text
    hub.faults.clear()
    assert client(load, "class", repo_id, force_download=True)[0] == head[0]
    for way in WAYS:
        assert client(load, way, repo_id)[0] == head[0]


@pytest.mark.parametrize("what", DAMAGE)
def test_weights_that_were_stored_damaged(client, repository, head, what):
    repo_id = repository(model__safetensors=DAMAGE[what](head[1]["model.safetensors"]))
    for way in WAYS:
        caught = client.error(load, way, repo_id)
        assert "ValueError" in caught.types
        assert "model.safetensors' cannot be read: it is damaged, or not a safetensors file" in caught.text


def test_a_pickle_alone_is_not_loaded(hub, client, repository, tmp_path):
    repo_id = repository(model__safetensors=None, pytorch_model__bin=pickle.dumps(Bomb(tmp_path / "ran")))
    for way in WAYS:
        caught = client.error(load, way, repo_id)
        assert f"'{repo_id}' has no model.safetensors: heads are loaded from safetensors only" in caught.text
    assert not (tmp_path / "ran").exists()
    # Nor is it downloaded, nor anybody asked to convert it
    assert not [request for request in hub.requests if ".bin" in request or "discussions" in request]


# --------------------------------------------------------------------------- incorrect configurations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 10**9}, "4,000,000,000 numbers of every token"),
        ({"layers": list(range(10**5)), "hidden_size": 5000}, "500,000,000 numbers"),
        ({"signal": "logits", "base_vocab_size": 10**9, "layers": []}, "base_vocab_size=1000000000: expected at most"),
        ({"hidden_size": 2**20}, "do not fit the head's config.json"),
    ],
    ids=["hidden_size", "layers", "vocabulary", "within bounds"],
)
def test_a_configuration_of_a_billion_parameters(client, repository, head, changes, message):
    repo_id = repository(config__json=changed_config(head, **changes))
    for way in WAYS:
        text, grown = client(measured_load, way, repo_id)
        assert message in text
        assert grown < 20


@pytest.mark.parametrize(
    "changes",
    [{"hidden_sizes": 4}, {"num_labels": 3}, {"transformers_weights": "x.bin"}, {"quantization_config": {}}],
    ids=lambda changes: next(iter(changes)),
)
def test_unknown_keys(client, repository, head, changes):
    repo_id = repository(config__json=changed_config(head, **changes))
    for way in WAYS:
        caught = client.error(load, way, repo_id)
        assert "ValueError" in caught.types
        assert f"configuration has no {next(iter(changes))}: check the spelling" in caught.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate": "no"}, "gate='no', expected true or false"),
        ({"value": 0}, "value=0, expected true or false"),
        ({"fingerprint": 5}, "fingerprint=5, expected a table or null"),
        ({"adapter": ["lora_A"]}, r"adapter=['lora_A'], expected a table or null"),
        ({"base_model": 7}, "base_model=7, expected text or null"),
        ({"standardization": {}}, "standardization={}, expected text or null"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_fields_of_an_incorrect_type(client, repository, head, changes, message):
    repo_id = repository(config__json=changed_config(head, **changes))
    for way in WAYS:
        caught = client.error(load, way, repo_id)
        assert "ValueError" in caught.types
        assert message in caught.text


@pytest.mark.parametrize("named", ["evil/kernel", 5, {"": "evil/kernel"}], ids=str)
def test_kernels_named_in_a_configuration_are_not_requested(hub, client, repository, head, named):
    repo_id = repository(config__json=changed_config(head, attn_implementation=named))
    for way in WAYS:
        assert client(load, way, repo_id)[0] == head[0]
    assert not [request for request in hub.requests if "evil" in request]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"{", "is not a valid JSON file"),
        (b"[]", "holds a model of type None, not a reward head"),
        (b"[" * 10**5, "is not a valid JSON file"),
        (b"\xff\xfe", "is not a valid JSON file"),
        (b'{"model_type": "elhsr", "layers": 3}', "does not describe a reward head"),
        (b'{"model_type": "elhsr", "hidden_size": "4", "layers": [1]}', "do not describe a reward head"),
        (b'{"model_type": "llama", "hidden_size": 4}', "holds a model of type 'llama', not a reward head"),
    ],
)
def test_configurations_that_are_not_a_heads(hub, client, repository, config, message):
    repo_id = repository(config__json=config)
    for way in ("class", "generate"):
        assert message in client.error(load, way, repo_id).text
    # The weights of a language model could be large
    assert not [request for request in hub.requests if message.startswith("holds") and "model.safetensors" in request]


def test_code_that_auto_map_points_at_does_not_run(client, repository, head, tmp_path):
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n".encode()
    pointing = {"auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Config"}}
    repo_id = repository(config__json=changed_config(head, **pointing), code__py=code)
    for way in WAYS:
        assert client(load, way, repo_id)[0] == head[0]
    assert not (tmp_path / "ran").exists()
