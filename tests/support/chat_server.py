"""A server of chat completions that answers as a real one did, over HTTP; or that records what a real one answers."""

import json
import threading
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

#: What is asked in recordings and replayed by tests.
QUESTIONS = (
    "Anna found 4 coins on Monday and 7 coins on Tuesday. How many coins did Anna find altogether?",
    "Is the sky blue? Answer yes or no.",
)
SETTINGS = {"temperature": 0.8, "top_p": 0.9, "max_tokens": 24, "seed": 7}
NUMBER = 4


@contextmanager
def chat_server(answer):
    """Serves `answer(request) -> (status, body)` for every request, and yields its base address and the requests."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.path, request))
            status, body = answer(request)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def recorder(upstream: str, recordings: list):
    """Passes requests on to a real server, and keeps each with its answer."""

    def answer(request):
        body = json.dumps(request).encode()
        asked = urllib.request.Request(
            f"{upstream}/chat/completions", body, {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(asked, timeout=120) as response:
            recordings.append({"request": request, "answer": json.loads(response.read())})
        return 200, recordings[-1]["answer"]

    return answer


def replay(file: Path):
    """Gives every request the answer that was recorded for it, and refuses one that was not recorded."""
    recordings = json.loads(file.read_text())["recordings"]

    def answer(request):
        for recorded in recordings:
            if recorded["request"] == request:
                return 200, recorded["answer"]
        return 400, {"error": {"message": "this request was not recorded"}}

    return answer
