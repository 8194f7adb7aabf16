"""The paper's own configuration is checked, estimated and rehearsed; a rehearsal goes through every step."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, LlamaConfig

from hf_elhsr.rollouts.tasks import find_task

ROOT = Path(__file__).parents[1]


def run(*arguments):
    command = [sys.executable, str(ROOT / "examples" / "reproduce_paper.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture
def paper(tmp_path, smollm2_folder):
    """The paper's plan, with Llama-3.1-8B's shape and a few of MATH's rows in place of what the Hub holds."""
    folder = tmp_path / "llama"
    LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(smollm2_folder).save_pretrained(folder)
    rows = tmp_path / "math.jsonl"
    problems = [{"problem": f"What is {i} + {i}?", "solution": f"It is $\\boxed{{{2 * i}}}$."} for i in range(400)]
    rows.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    plan = json.loads((ROOT / "examples" / "reproduction" / "paper.json").read_text())
    assert plan["tasks"] == [{"name": "math", "train_prompts": 6000, "test_prompts": 500}]
    plan["model"] = str(folder)
    plan["tasks"] = [{"name": f"math:{rows}", "train_prompts": 200, "test_prompts": 50}]
    return tmp_path, plan


def test_a_dry_run_of_the_papers_own_plan(paper):
    folder, plan = paper
    (folder / "plan.json").write_text(json.dumps(plan))
    done = run(folder / "plan.json", folder / "out", "--dry-run")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "8,030,261,248 parameters, 16.1 GB of weights" in done.stdout
    assert "200 x 8 rollouts, at most 1,638,400 tokens" in done.stdout
    # 33 hidden states of 4,096 numbers in bfloat16
    assert f"{1_638_400 * 33 * 4096 * 2 / 1e9:,.1f} GB (all tokens, 33 of 33 layers)" in done.stdout
    assert "50 x 64 rollouts, at most 3,276,800 tokens" in done.stdout
    assert "Every step ran in rehearsal." in done.stdout
    assert not (folder / "out").exists()


def test_plans_that_cannot_be_run(paper):
    folder, plan = paper
    wrong = {
        "unknown": plan | {"colour": "red"},
        "too many": plan | {"tasks": [plan["tasks"][0] | {"train_prompts": 10_000}]},
        "no room": plan | {"disk_budget": "1MB"},
    }
    expected = {"unknown": "colour", "too many": "10000", "no room": "disk_budget=1000000"}
    for name, values in wrong.items():
        (folder / "plan.json").write_text(json.dumps(values))
        done = run(folder / "plan.json", folder / "out", "--dry-run")
        assert done.returncode != 0
        assert re.search(expected[name], done.stderr.splitlines()[-1]), done.stderr[-500:]


def test_the_small_plan_names_tasks_that_there_are():
    plan = json.loads((ROOT / "examples" / "reproduction" / "small.json").read_text())
    for task in plan["tasks"]:
        found = find_task(task["name"])
        assert len(found.problems("train", task["train_prompts"])) == task["train_prompts"]
        assert found.problems("test", task.get("skip_test_prompts", 0) + task["test_prompts"])
