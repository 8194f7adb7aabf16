"""The paper's comparison: its own plan is estimated and rehearsed, and a small one runs every step."""

import collections
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from reproduction.dry_run import RandomLabels, dry_run, estimate, rehearsal
from reproduction.plan import Plan
from reproduction.steps import Reproduction
from transformers import AutoTokenizer, LlamaConfig, Qwen2Config

from hf_elhsr import ElhsrRewardHead
from hf_elhsr.evaluation import STRATEGIES
from hf_elhsr.rollouts import RolloutSet
from hf_elhsr.tasks import find_task

ROOT = Path(__file__).parents[2]

LLAMA = LlamaConfig(
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    architectures=["LlamaForCausalLM"],
)


def model_folder(folder, config, smollm2_folder):
    config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(smollm2_folder).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def paper(tmp_path, smollm2_folder):
    """The paper's plan, with Llama-3.1-8B's shape and rows like MATH's in place of what the Hub holds."""
    rows = tmp_path / "math.jsonl"
    problems = [{"problem": f"What is {i} + {i}?", "solution": f"It is $\\boxed{{{2 * i}}}$."} for i in range(400)]
    rows.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    plan = json.loads((ROOT / "examples" / "reproduction" / "paper.json").read_text())
    assert plan["tasks"] == [{"name": "math", "train_prompts": 6000, "test_prompts": 500}]
    plan["model"] = model_folder(tmp_path / "llama", LLAMA, smollm2_folder)
    plan["tasks"] = [{"name": f"math:{rows}", "train_prompts": 200, "test_prompts": 50}]
    return plan


def test_the_papers_own_plan_is_estimated(paper):
    lines, disk = estimate(Plan.from_json(json.dumps(paper)))
    text = "\n".join(lines)
    assert "8,030,261,248 parameters, 16.1 GB of weights" in text
    # 33 hidden states of 4,096 numbers in bfloat16, and four numbers in float32 for every token of the test
    tokens = 200 * 8 * 1024
    assert f"at most {tokens:,} tokens" in text
    assert f"{tokens * 33 * 4096 * 2 / 1e9:,.1f} GB (all tokens, 33 of 33 layers)" in text
    assert "50 x 64 rollouts, at most 3,276,800 tokens" in text
    assert disk == tokens * 33 * 4096 * 2 + 50 * 64 * 1024 * 4 * 4
    paper["tasks"][0]["text_reward_model_epochs"] = 1
    _, with_text = estimate(Plan.from_json(json.dumps(paper)))
    assert with_text == disk + 40 * 8_030_261_248


def test_a_dry_run_from_the_command_line(paper, tmp_path):
    """There is so little room that tokens and layers are left out."""
    paper["disk_budget"] = "400MB"
    (tmp_path / "plan.json").write_text(json.dumps(paper))
    command = [sys.executable, str(ROOT / "examples" / "reproduce_paper.py"), str(tmp_path / "plan.json")]
    done = subprocess.run([*command, str(tmp_path / "out"), "--dry-run"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "(1 token in 146, 3 of 33 layers)" in done.stdout
    assert done.stdout.endswith("Every step ran in rehearsal.\n")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_too_small_is_reported_before_the_rehearsal(paper, tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 0, 10**9))
    with pytest.raises(ValueError, match=r"may take 443\.0 GB, and the disk of .* has 1\.0 GB left: lower disk_budget"):
        list(dry_run(Plan.from_json(json.dumps(paper)), tmp_path / "out"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, r"Plan of the configuration: unknown keys \['colour'\], missing keys \[\]"),
        ({"tasks": [{"name": "math", "train_prompts": 2}]}, r"TaskPlan .* missing keys \['test_prompts'\]"),
        ({"train_sampling": {"heat": 1}}, r"SamplingArguments of the configuration: unknown keys \['heat'\]"),
        (
            {"tasks": [{"name": "math", "train_prompts": 20, "test_prompts": 2, "few_prompts": [10, 20]}]},
            r"few_prompts \[20\] of task 'math': expected numbers from 2 to below its 20",
        ),
        (
            {"tasks": [{"name": "math", "train_prompts": 20, "test_prompts": 2, "signals": ["smell"]}]},
            r"signals \['smell'\] of task 'math': expected some of",
        ),
    ],
)
def test_plans_that_cannot_be_read(paper, changes, message):
    with pytest.raises(ValueError, match=message):
        Plan.from_json(json.dumps(paper | changes))


def test_plans_that_cannot_be_executed(paper):
    with pytest.raises(ValueError, match="disk_budget=1000000"):
        estimate(Plan.from_json(json.dumps(paper | {"disk_budget": "1MB"})))
    paper["tasks"][0]["few_layers"] = [32, 33]
    with pytest.raises(
        ValueError, match=r"few_layers \[32, 33\] of task 'math:.*': layers \[33\] are not among those recorded"
    ):
        estimate(Plan.from_json(json.dumps(paper)))
    del paper["tasks"][0]["few_layers"]
    paper["tasks"][0]["train_prompts"] = 10_000
    with pytest.raises(ValueError, match="10000"):
        estimate(Plan.from_json(json.dumps(paper)))


def test_every_step_runs_once_and_a_changed_plan_is_noticed(tmp_path, smollm2_folder):
    """Qwen2's configuration has a value for every layer, and the rehearsal has fewer layers."""
    # The size of SmolLM2's vocabulary: it gets that tokenizer
    config = Qwen2Config(vocab_size=49_152, num_hidden_layers=6, pad_token_id=2, eos_token_id=2)
    sampling = {"n": 4, "max_new_tokens": 64}
    task = {"name": "arithmetic", "train_prompts": 400, "test_prompts": 400, "few_prompts": [100, 200]}
    task |= {"signals": ["top_log_probabilities"], "text_reward_model_epochs": 2, "few_layers": [1, 3, 5]}
    plan = {
        "model": model_folder(tmp_path / "qwen", config, smollm2_folder),
        "dtype": "bfloat16",
        "preset": "default",
        "train_sampling": sampling,
        "test_sampling": sampling | {"seed": 1},
        "tasks": [task, {"name": "coin_flip", "train_prompts": 400, "test_prompts": 400}],
        "disk_budget": "20GB",
        "tokens_per_second": 500,
    }
    tiny = rehearsal(Plan.from_json(json.dumps(plan)), tmp_path)
    # Half of the tokens' hidden states are left out
    sampling = dataclasses.replace(tiny.train_sampling, max_new_tokens=16)
    tiny = dataclasses.replace(tiny, train_sampling=sampling, disk_budget="600kB")
    folder = tmp_path / "steps"
    Reproduction(tiny, folder, RandomLabels).run()
    report = json.loads((folder / "report.json").read_text())
    accuracy = report["tasks"]["arithmetic"]["evaluation"]["accuracy"]
    heads = {"head on 15 prompts", "head on 16 prompts", "head on 2 layers", "head on top-20 log-probabilities"}
    texts = {"text reward model", "head and text, worse of ranks", "head and text, min-max", "head and text, learned"}
    assert accuracy.keys() == {*STRATEGIES, "last-token probe", "head of coin_flip", *heads, *texts}
    few = ElhsrRewardHead.from_pretrained(folder / "arithmetic" / "head_2_layers")
    assert few.config.layers == [0, 2]
    for rollout in RolloutSet(folder / "arithmetic" / "test").rollouts():
        assert rollout.judged["head on 2 layers"] not in (rollout.reward, rollout.judged["head on 15 prompts"])
    assert {"last-token probe", "head of arithmetic"} < report["tasks"]["coin_flip"]["evaluation"]["accuracy"].keys()
    for task in ("arithmetic", "coin_flip"):
        assert f"]({task}/evaluation.svg)" in (folder / "report.md").read_text()
        assert (folder / task / "evaluation.svg").is_file()
    made = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    Reproduction(tiny, folder, RandomLabels).run()
    written = {file.name for file, time in made.items() if file.stat().st_mtime_ns != time}
    assert written == {"report.md", "report.json", "evaluation.svg", "training_size.svg"}
    assert json.loads((folder / "report.json").read_text()) == report
    with pytest.raises(
        ValueError, match=r"head' was trained with settings .*, and the plan says .*: delete this folder"
    ):
        Reproduction(dataclasses.replace(tiny, preset="paper"), folder, RandomLabels).run()
    probe = folder / "arithmetic" / "probe" / "training.json"
    record = json.loads(probe.read_text())
    record["rollouts"]["sampling"]["temperature"] = 1.0
    kept = probe.read_text()
    probe.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"probe' was trained with rollouts .*, and the plan says"):
        Reproduction(tiny, folder, RandomLabels).run()
    probe.write_text(kept)
    longer = tuple(dataclasses.replace(own, text_reward_model_epochs=3) for own in tiny.tasks[:1])
    with pytest.raises(ValueError, match="text_reward_model' was trained with epochs 1, and the plan says 3"):
        Reproduction(dataclasses.replace(tiny, tasks=longer), folder, RandomLabels).run()


def test_the_small_plan_names_tasks_that_exist():
    plan = Plan.from_json((ROOT / "examples" / "reproduction" / "small.json").read_text())
    for task in plan.tasks:
        found = find_task(task.name)
        assert len(found.problems("train", task.train_prompts)) == task.train_prompts
        assert found.problems("test", task.skip_test_prompts + task.test_prompts)
