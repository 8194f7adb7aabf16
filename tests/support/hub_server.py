"""A small local Hub that speaks the protocol of huggingface_hub, and fails on demand.

    with HubServer() as hub:
        ...                                     # a client with HF_ENDPOINT=hub.url, and one of hub_reading.TOKENS
        hub.fail(503, "model.safetensors")      # the next request for such a path
        hub.repositories["org/name"]            # what was stored

Large files are redirected to another origin, "localhost" instead of "127.0.0.1", as the Hub does to its CDN.
"""

import contextlib
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any

from hub_protocol import Handler
from hub_repositories import LFS_SUFFIXES, Repository, StoredFile


@dataclass
class Fault:
    """A failure of the next `times` requests whose method and path match.

    Either a status is answered, with these headers; or the body is changed but not its headers; or the
    connection ends after so many bytes of the body.
    """

    path: str
    methods: tuple[str, ...]
    times: int
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    change: Callable[[bytes], bytes] | None = None
    cut_after: int | None = None


class _Listener(ThreadingHTTPServer):
    """Whoever is still connected when it closes is not served any more."""

    daemon_threads = True

    def __init__(self, *arguments: Any):
        self.connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # The others close their connections when they like; anything else is an error of this Hub, and is printed
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class HubServer:
    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        #: Which repository is meant by a name without an organisation
        self.bare_names: dict[str, str] = {}
        #: Where large files are announced to lie, too: an address of the storage that hf_xet speaks with
        self.xet_endpoint: str | None = None
        self.lock = threading.Lock()
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen, after `stop` on the same port again."""
        self._listener = _Listener(("127.0.0.1", self.port), type("HubHandler", (Handler,), {"hub": self}))
        self.port = self._listener.server_port
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()

    def __enter__(self) -> "HubServer":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fail(self, status: int, path: str, times: int = 1, methods: tuple[str, ...] = ("GET", "HEAD"), **headers: str):
        """Answer with this status and these headers, such as `Retry_After="7"`."""
        self.faults.append(Fault(path, methods, times, status=status, headers=headers))

    def change(self, path: str, change: Callable[[bytes], bytes], times: int = 10**6) -> None:
        """Serve something else in the place of what was stored, at the size and with the hash of what was stored."""
        self.faults.append(Fault(path, ("GET",), times, change=change))

    def cut(self, path: str, after: int, times: int = 1) -> None:
        """End the connection in mid-file."""
        self.faults.append(Fault(path, ("GET",), times, cut_after=after))

    def next_fault(self, method: str, path: str) -> Fault | None:
        """The failure that this request is to have; the request is recorded."""
        with self.lock:
            self.requests.append(f"{method} {path}")
            for fault in self.faults:
                if fault.times > 0 and method in fault.methods and fault.path in path:
                    fault.times -= 1
                    return fault
        return None

    def store(self, repo_id: str, files: dict[str, bytes], message: str = "by hand", **settings: bool) -> Repository:
        """Put files into a repository, as if somebody had pushed them."""
        if repo_id not in self.repositories:
            self.repositories[repo_id] = Repository(repo_id, **settings)
        stored = {path: StoredFile(content, path.endswith(LFS_SUFFIXES)) for path, content in files.items()}
        self.repositories[repo_id].commit("main", message, stored)
        return self.repositories[repo_id]
