"""HTTP of the tests' local Hub: the answers to requests, and deliberate failures."""

import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_reading import Answer, Refused, Request
from hub_writing import Writing

_MODEL = r"(?P<repo>[^/]+/[^/]+)"
_AT = r"(?P<revision>[^/]+)"
_ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("GET", r"/api/models", "models"),
    ("GET", rf"/api/models/{_MODEL}", "info"),
    ("GET", r"/api/models/(?P<name>[^/]+)", "bare_name"),
    ("GET", rf"/api/models/{_MODEL}/revision/{_AT}", "info"),
    ("GET", rf"/api/models/{_MODEL}/tree/{_AT}/?(?P<folder>(?<=/).+)?", "tree"),
    ("POST", rf"/api/models/{_MODEL}/paths-info/{_AT}", "paths"),
    ("POST", rf"/api/models/{_MODEL}/branch/{_AT}", "branch"),
    ("POST", rf"/api/models/{_MODEL}/preupload/{_AT}", "preupload"),
    ("POST", rf"/api/models/{_MODEL}/commit/{_AT}", "commit"),
    ("GET", rf"/api/models/{_MODEL}/commits/{_AT}", "commits"),
    ("GET", rf"/api/models/{_MODEL}/discussions", "discussions"),
    ("GET", rf"/api/models/{_MODEL}/xet-(?P<permission>read|write)-token/{_AT}", "xet_token"),
    ("POST", rf"/{_MODEL}\.git/info/lfs/objects/batch", "batch"),
    ("POST", rf"/{_MODEL}\.git/info/lfs/verify", "verify"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "upload"),
    ("GET", r"/lfs/(?P<oid>[0-9a-f]{64})/.+", "large_file"),
    ("GET", rf"/{_MODEL}/resolve/{_AT}/(?P<file>.+)", "resolve"),
]


class Handler(BaseHTTPRequestHandler):
    #: The HubServer
    hub: Any
    protocol_version = "HTTP/1.1"
    # Head and body of an answer are written one after the other: without this the second waits for the client's word
    disable_nagle_algorithm = True

    def log_message(self, *arguments: object) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        request = Request(self.hub, self.headers, parse_qs(split.query), body)
        fault = self.hub.next_fault(self.command, unquote(self.path))
        try:
            if fault is not None and fault.status is not None:
                raise Refused(fault.status, "", "made to fail", **fault.headers)
            with self.hub.lock:
                answer = self._answer(split.path, Writing(request))
        except Refused as refused:
            answer = refused.answer()
        self._send(answer, fault)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _answer(self, path: str, answers: Writing) -> Answer:
        method = "GET" if self.command == "HEAD" else self.command
        for verb, pattern, name in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and verb == method:
                given = {key: unquote(value) for key, value in found.groupdict().items() if value is not None}
                answer = getattr(answers, name)(**given)
                if isinstance(answer, Answer):
                    return answer
                return Answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
        raise Refused(404, "", f"no such path: {path}")

    def _send(self, answer: Answer, fault: Any) -> None:
        body, size = answer.body, len(answer.body)
        if fault is not None and fault.change is not None:
            body = fault.change(body)[:size]
        if fault is not None and fault.cut_after is not None:
            body = body[: fault.cut_after]
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(size), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.close_connection = len(body) < size
        self.wfile.write(body)
