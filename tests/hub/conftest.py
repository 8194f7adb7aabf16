import pytest
from hub_client import HubClient
from hub_server import HubServer


@pytest.fixture(scope="session")
def hub():
    """A local Hub."""
    with HubServer() as hub:
        yield hub


@pytest.fixture(scope="session")
def hub_home(tmp_path_factory):
    """Where the client keeps what it has loaded."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def client(hub, hub_home):
    """A separate process, whose huggingface_hub knows only that Hub."""
    client = HubClient(hub.url, hub_home)
    yield client
    client.close()


@pytest.fixture(scope="session")
def xet_client(hub, tmp_path_factory):
    """One that may write, and goes for large files where `hub.xet_endpoint` says."""
    settings = {"HF_HUB_DISABLE_XET": "0", "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1"}
    client = HubClient(hub.url, tmp_path_factory.mktemp("xet_home"), HF_TOKEN="hf_writer", **settings)
    yield client
    client.close()
