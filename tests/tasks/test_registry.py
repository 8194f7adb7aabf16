"""Tasks by name: one from outside the package is found like the package's own."""

import json
import sys

import pytest
from tiny_task import OffsetTask
from tiny_tokenizer import tiny_tokenizer

from hf_elhsr.cli.app import main
from hf_elhsr.rollouts import RolloutSet
from hf_elhsr.tasks import TASKS, find_task, register_task, task_forms
from tiny_models import tiny_model


@pytest.fixture
def toy():
    register_task("toy", OffsetTask)
    yield
    del TASKS["toy"]


def test_a_task_from_outside_is_found_by_its_name(toy):
    assert "toy" in task_forms()
    assert find_task("toy").problems("train", 1)[0].id == "p0"
    assert find_task("toy:7").problems("train", 1)[0].id == "p7"
    # Also by the name that rollouts record
    assert find_task(find_task("toy:7").name).name == "toy:7"


def test_a_task_from_outside_on_the_command_line(toy, tmp_path, monkeypatch, capsys):
    for part in (tiny_model(), tiny_tokenizer()):
        part.save_pretrained(tmp_path / "model")
    options = [
        "--model",
        "model",
        "--dtype",
        "float32",
        "--n",
        "2",
        "--max-new-tokens",
        "4",
        "--prompts",
        "3",
        "--json",
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hf-elhsr", "sample", "out", "--task", "toy:5", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["rollouts"] == 6
    sampled = RolloutSet(tmp_path / "out")
    assert sampled.settings["task"] == "toy:5"
    assert [rollout.problem for rollout in sampled.rollouts()] == ["p5", "p5", "p6", "p6", "p7", "p7"]


@pytest.mark.parametrize("name", ["arithmetic", "toy:task", "toy.jsonl", ""])
def test_names_that_cannot_be_registered(name):
    with pytest.raises(ValueError, match=r"task 'arithmetic' already exists|Expected a task's name without a colon"):
        register_task(name, OffsetTask)
    assert TASKS.get(name) is not OffsetTask


@pytest.mark.parametrize("name", ["coin_flip:5", "arithmetic:", "reasoning_gym", "poetry:3"])
def test_text_after_a_name_is_for_tasks_that_take_it(name):
    with pytest.raises(ValueError, match=f"Unknown task '{name}': expected one of .*reasoning_gym:DATASET.*FILE.jsonl"):
        find_task(name)
