"""Heads through olah, a mirror of the Hub that others have written: it reads the local Hub as it reads huggingface.co.

`make test-mirror` installs it in an environment of its own, since it brings many packages.
"""

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from hub_client import HubClient
from huggingface_hub import snapshot_download
from loaded_heads import WAYS, contents, load, save_tiny_head

_INSTALLED = Path(__file__).parents[2] / ".venv-mirror" / "bin" / "olah-cli"
OLAH = shutil.which("olah-cli") or (str(_INSTALLED) if _INSTALLED.is_file() else None)
pytestmark = pytest.mark.skipif(OLAH is None, reason="olah is not installed: `make test-mirror` does it")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port, process):
    for _ in range(600):
        assert process.poll() is None, "olah has ended"
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionError:
            time.sleep(0.1)
    raise TimeoutError(f"olah does not listen on port {port}")


@pytest.fixture(scope="module")
def mirror(hub, tmp_path_factory):
    """A client that knows the mirror alone."""
    folder, port = tmp_path_factory.mktemp("mirror"), free_port()
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "hf-scheme": "http",
        "hf-netloc": f"127.0.0.1:{hub.port}",
        "hf-lfs-netloc": f"localhost:{hub.port}",
        "repos-path": folder / "repos",
        "log-path": folder / "logs",
        # Ask the Hub each time which commit a branch is at
        "metadata-cache-ttl": 0,
    }
    command = [OLAH, *(str(word) for name, value in settings.items() for word in (f"--{name}", value))]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(port, process)
        client = HubClient(f"http://127.0.0.1:{port}", folder / "home")
        yield client
        client.close()
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return save_tiny_head(tmp_path_factory.mktemp("first"), seed=0)


@pytest.mark.parametrize("way", WAYS)
def test_loaded_through_the_mirror(hub, mirror, first, way):
    hub.store(f"mirrored/{way}", first[1])
    assert mirror(load, way, f"mirrored/{way}") == (first[0], f"mirrored/{way}")
    assert any(request.startswith("GET /lfs/") for request in hub.requests)


def test_every_file_of_an_old_and_a_new_revision(hub, mirror, first, tmp_path):
    weights, files = save_tiny_head(tmp_path, seed=1)
    more = {"README.md": "---\ntags: [é]\n---\n".encode(), "custom_generate/generate.py": b"x = 1\n"}
    old = hub.store("mirrored/revised", first[1]).branches["main"]
    new = hub.store("mirrored/revised", files | more).branches["main"]
    assert mirror(load, "class", "mirrored/revised", revision=old)[0] == first[0]
    assert mirror(load, "generate", f"mirrored/revised@{old}")[0] == first[0]
    assert mirror(load, "class", "mirrored/revised")[0] == weights
    for revision in (old, new):
        folder = Path(mirror(snapshot_download, "mirrored/revised", revision=revision))
        stored = hub.repositories["mirrored/revised"].revision(revision).files
        assert contents(folder) == {path: file.content for path, file in stored.items()}


def test_damaged_files_of_the_mirror_are_refused(hub, mirror, first):
    hub.store("mirrored/damaged", first[1] | {"model.safetensors": first[1]["model.safetensors"][:-4] + b"abcd"})
    hub.change("/lfs/", lambda content: content[:-4] + b"1234")
    try:
        caught = mirror.error(load, "class", "mirrored/damaged")
    finally:
        hub.faults.clear()
    assert "does not match the Hub's hash: expected" in caught.text
