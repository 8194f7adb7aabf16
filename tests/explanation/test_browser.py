"""In headless Chromium: the page of 500 hostile strings runs nothing, asks for nothing, and is built as a harmless one.

`make test-browser` installs Chromium where apt works.
"""

import http.server
import shutil
import subprocess
import threading

import pytest
from hostile_texts import hostile_texts
from made_explanations import explanation_of
from page_structure import Structure

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: `make test-browser` installs it with apt")

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=3000",
    "--enable-logging=stderr",
    "--dump-dom",
]
CALLS_OUT = (
    "<img src='http://evil.example/image' onerror=\"document.title='run'\">"
    "<script>document.title='run'</script><link rel=stylesheet href='http://evil.example/style'>"
)


@pytest.fixture
def browse(tmp_path):
    """Opens a page; returns the elements that the browser made of it, the paths it requested, and its log."""
    asked = []

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def open_page(page):
        asked.clear()
        (tmp_path / "page.html").write_text(page, encoding="utf-8")
        rules = f"--host-resolver-rules=MAP evil.example 127.0.0.1:{server.server_port}"
        command = [CHROMIUM, *QUIET, rules, f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path}/page.html"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
        shutil.rmtree(tmp_path / "profile")
        return Structure(done.stdout), list(asked), done.stderr

    yield open_page
    server.shutdown()


def title(structure):
    [[shown]] = [texts for (tag, _), texts in structure.texts.items() if tag == "title" and len(texts) == 1]
    return shown


def test_a_page_that_does_not_escape_runs_and_requests(browse):
    """The negative control: if the page did not escape texts, the next test would fail."""
    structure, asked, _ = browse(f"<title>Why this candidate won</title>{CALLS_OUT}")
    assert title(structure) == "run"
    assert sorted(asked) == ["/image", "/style"]


def test_hostile_texts_run_nothing_and_request_nothing(browse):
    texts = hostile_texts()
    hostile, asked, log = browse(explanation_of(texts).to_html())
    assert asked == []
    assert "Content Security Policy" not in log
    harmless, _, _ = browse(explanation_of(["word"] * len(texts)).to_html())
    assert hostile.structure == harmless.structure
    assert len(hostile.structure) > 10 * len(texts)
    assert ("title", []) in hostile.structure
    assert hostile.texts["title", ""][0] == "Why this candidate won"


def test_the_policy_holds_even_where_markup_gets_in(browse):
    page = explanation_of(["word"] * 3).to_html().replace("<main>", f"<main>{CALLS_OUT}", 1)
    structure, asked, log = browse(page)
    assert structure.texts["title", ""][0] == "Why this candidate won"
    assert asked == []
    assert "Content Security Policy" in log
