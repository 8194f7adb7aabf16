"""Five of the examples run as they are, each in a process of its own, at a small size; and so does the notebook.

The other two, which take longer, have tests of their own: test_fine_tuning.py and test_reproduction.py.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import torch
from chat_server import chat_server
from nbclient import NotebookClient

from hf_elhsr import ElhsrConfig, ElhsrRewardHead

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "best_of_n.ipynb"


# This checkout's package, whatever is installed
PATH = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def run(name, *arguments, **environment):
    """What the example prints, with runs of blanks as one."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": PATH, "COLUMNS": "160", **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return " ".join(done.stdout.split())


def test_demo(smollm2_folder):
    printed = run("demo.py", "--questions", 2)
    assert "The head has 53,571 parameters" in printed
    assert "2 questions x 8 candidates, sampled, scored and verified" in printed


def test_own_task(tmp_path, smollm2_folder):
    small = ["--prompts", 24, "--test-prompts", 4, "--n", 4, "--max-new-tokens", 24]
    printed = run("own_task.py", tmp_path, *small)
    assert "4 prompts of the split `test`, best of 4" in printed
    assert ElhsrRewardHead.from_pretrained(tmp_path / "head").config.num_features == 17856


def test_own_signal_processor(smollm2_folder):
    printed = run("own_signal_processor.py")
    moved = re.findall(r"reward [+-]\d+\.\d\d, restlessness (\d+\.\d\d)", printed)
    assert len(moved) == 4
    assert all(float(distance) > 0 for distance in moved)


def test_score_with_transformers_own_loop(smollm2_folder):
    printed = run("score_with_transformers_own_loop.py")
    assert len(re.findall(r"(?:^| )[+-]\d+\.\d\d ", printed)) >= 4


def test_best_of_n_through_an_interface(tmp_path):
    head = ElhsrRewardHead(ElhsrConfig(signal="top_log_probabilities", num_log_probabilities=20, layers=[]))
    with torch.no_grad():
        head.weight[1, 20] = 1.0
    head.save_pretrained(tmp_path)
    recorded = json.loads((ROOT / "tests" / "data" / "llama_cpp_answers.json").read_text())["recordings"]
    choices = [recording["answer"]["choices"][0] for recording in recorded]
    # The server is on this machine, but the client counts it as the network
    with chat_server(lambda request: (200, {"choices": choices[: request["n"]]})) as (url, requests):
        printed = run("best_of_n_through_an_interface.py", url, tmp_path, "How many?", "--n", 3, HF_HUB_OFFLINE="0")
    assert requests[0][1]["messages"] == [{"role": "user", "content": "How many?"}]
    texts = [" ".join(choice["message"]["content"].split()) for choice in choices[:3]]
    assert all(text in printed for text in texts)
    assert re.match(r"\* [+-]\d+\.\d\d ", printed)


def displayed(notebook, kind):
    """What the code cells displayed as this kind of data."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


def test_the_notebook_shows_candidates_explanation_and_evaluation(smollm2_folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", PATH)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": EXAMPLES}}).execute()
    table, why = displayed(notebook, "text/html")
    assert "Best of 8 candidates for 1 prompt." in table
    assert table.count("<tr><th>") == 9
    assert "<iframe" in why
    assert "<script" not in why
    [evaluation] = displayed(notebook, "text/markdown")
    assert "| **reward head** |" in evaluation
    assert evaluation.strip() in (ROOT / "model_cards/elhsr-smollm2-135m-instruct-arithmetic/README.md").read_text()


def test_the_notebook_is_kept_without_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
