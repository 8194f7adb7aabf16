"""With `--json`, standard output is one JSON object, whatever the command."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import metadata_load
from typer.testing import CliRunner

from hf_elhsr import ElhsrConfig, ElhsrRewardHead
from hf_elhsr.cli.app import app
from hf_elhsr.cli.result import show
from hf_elhsr.rollouts import RolloutSet


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def made(tiny, tiny_task, tmp_path_factory):
    """What sample, train and evaluate say, and the folder where their work is."""
    folder = tmp_path_factory.mktemp("made")
    sampled = run("sample", folder / "rollouts", *tiny_task, "--prompts", 12, "--json")
    trained = run("train", folder / "rollouts", folder / "head", "--max-epochs", 2, "--json")
    numbers = folder / "head" / "evaluation" / "test.json"
    head = ["--head", folder / "head"]
    evaluated = run("evaluate", folder / "test", *tiny_task, *head, "--prompts", 8, "--numbers", numbers, "--json")
    return folder, sampled, trained, evaluated


def test_sample(made):
    folder, sampled, _, _ = made
    assert (sampled["folder"], sampled["prompts"], sampled["rollouts"]) == (str(folder / "rollouts"), 12, 48)
    assert 0 < sampled["correct"] < 48
    assert sampled["verifier_failures"] == []


def test_relabel(tiny, tiny_options, tiny_task, tmp_path):
    sampled = run("sample", tmp_path / "rollouts", *tiny_task, "--prompts", 6, "--json")
    (tmp_path / "mine.py").write_text("def check(completion, answer):\n    return len(completion) % 2 == 1\n")
    own = ["--task", tiny / "mine.jsonl", "--verifier", f"{tmp_path / 'mine.py'}:check"]
    printed = run("relabel", tmp_path / "rollouts", *own, "--json")
    # This verifier reverses every label
    assert printed == sampled | {"correct": 24 - sampled["correct"], "changed": 24}
    again = run("sample", tmp_path / "rollouts", *tiny_options, *own, "--prompts", 6, "--json")
    assert again["correct"] == printed["correct"]


def test_train(made):
    folder, _, trained, _ = made
    record = json.loads((folder / "head" / "training.json").read_text())
    assert trained == {"folder": str(folder / "head"), **record}


def test_evaluate(made):
    folder, _, _, evaluated = made
    assert evaluated == json.loads((folder / "head" / "evaluation" / "test.json").read_text())
    assert (evaluated["prompts"], evaluated["n"]) == (8, 4)


def test_refit(made):
    folder, *_ = made
    printed = run("refit", folder / "head", folder / "refitted", "--rollouts", folder / "rollouts", "--json")
    record = json.loads((folder / "refitted" / "training.json").read_text())
    assert printed == {"folder": str(folder / "refitted"), **record}


def test_a_refitted_head_is_no_longer_calibrated(made, tmp_path):
    folder, *_ = made
    head = Path(shutil.copytree(folder / "head", tmp_path / "head"))
    record = json.loads((head / "training.json").read_text())
    calibrated = record | {"calibrate": record["rollouts"] | {"skip": 12}}
    (head / "training.json").write_text(json.dumps(calibrated))
    run("refit", head, tmp_path / "refitted", "--rollouts", folder / "rollouts", "--json")
    assert json.loads((tmp_path / "refitted" / "training.json").read_text()).keys() == {*record, "refit"}


def test_card(made):
    folder, *_ = made
    printed = run("card", folder / "head", "--json")
    places = {"card": folder / "head" / "README.md", "custom_generate": folder / "head" / "custom_generate"}
    assert printed == {name: str(place) for name, place in places.items()}
    assert "license" not in metadata_load(places["card"])
    run("card", folder / "head", "--license", "mit", "--json")
    assert metadata_load(places["card"])["license"] == "mit"


def test_convert(tiny, tiny_options, tmp_path):
    columns = ElhsrRewardHead.from_pretrained(tiny / "head").weight.shape[1]
    weights = {"fused_layer.weight": torch.ones(2, columns), "fused_layer.bias": torch.zeros(2)}
    torch.save(weights, tmp_path / "reward_model.pt")
    model = tiny_options[:2]
    printed = run("convert", tmp_path / "reward_model.pt", tmp_path / "converted", *model, "--json")
    assert printed == {"folder": str(tmp_path / "converted")}


@pytest.mark.parametrize("command", ["sample", "convert"])
def test_a_missing_base_model_is_reported_before_the_work(command, tiny, tiny_options, tiny_task, tmp_path, caplog):
    def make(out, *more):
        if command == "sample":
            run("sample", out, *tiny_task, "--prompts", 2, *more, "--json")
            return RolloutSet(out).config.base_model
        columns = ElhsrRewardHead.from_pretrained(tiny / "head").weight.shape[1]
        torch.save(
            {"reward_layer.weight": torch.ones(1, columns), "reward_layer.bias": torch.zeros(1)}, tmp_path / "x.pt"
        )
        run("convert", tmp_path / "x.pt", out, *tiny_options[:2], *more, "--json")
        return ElhsrConfig.from_pretrained(out).base_model

    assert make(tmp_path / "given", "--base-model", "org/base") == "org/base"
    assert "--base-model" not in caplog.text
    assert make(tmp_path / "not") == str(tiny / "model")
    assert "is not an id on the Hub: publishing needs one. Pass it now, as --base-model" in caplog.text
    with pytest.raises(ValueError, match="--base-model gpt2: expected the model's id on the Hub"):
        make(tmp_path / "never", "--base-model", "gpt2")
    assert not (tmp_path / "never").exists()


def test_a_head_that_pools_determines_the_base_model(tiny, tiny_task, tmp_path):
    pooled = ["--pooled-by", tiny / "head", "--base-model", "org/base"]
    with pytest.raises(ValueError, match="leave out --base-model, which the head determines"):
        run("sample", tmp_path / "out", *tiny_task, "--prompts", 2, *pooled)


@pytest.mark.parametrize("more", [[], ["--all"], ["--live"]])
def test_generate(tiny, tiny_options, more):
    printed = run("generate", "w7 w8 w9", *tiny_options, "--head", tiny / "head", *more, "--json")
    assert len(printed["candidates"]) == 4
    rewards = [candidate["reward"] for candidate in printed["candidates"]]
    assert rewards[printed["winner"]] == max(rewards)
    assert printed["text"] == printed["candidates"][printed["winner"]]["text"]


def test_inspect(tiny, tiny_options, tmp_path):
    files = ["--numbers", tmp_path / "why.json", "--html", tmp_path / "why.html"]
    printed = run("inspect", "w7 w8 w9", *tiny_options, "--head", tiny / "head", *files, "--json")
    assert printed == json.loads((tmp_path / "why.json").read_text())
    assert len(printed["prompts"][0]["candidates"]) == 4


def test_values_that_json_does_not_have_become_null(capsys):
    show(True, {"a": float("nan"), "b": [1.5, float("inf")], "c": ("\udc80", {"d": -float("inf")})})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"a": None, "b": [1.5, None], "c": ["\udc80", {"d": None}]}
    assert printed.isascii()


def test_a_path_in_a_sentence_stays_whole_in_a_pipe(capsys):
    path = "/".join(["folder"] * 30)
    show(False, {"path": path}, f"It is in {path}.")
    assert capsys.readouterr().out == f"It is in {path}.\n"
