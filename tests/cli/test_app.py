"""The command line, from nothing to a head and its card, on the real model at a small size."""

import dataclasses
import json
import shutil

import pytest
import torch
import transformers
from typer.testing import CliRunner

from hf_elhsr import ElhsrRewardHead
from hf_elhsr.cli.app import app
from hf_elhsr.rollouts import RolloutSet
from hf_elhsr.training import PRESETS
from tiny_models import tiny_classifier

MODEL = ["--model", "smollm2-demo"]
SMALL = ["--max-new-tokens", "32", "--n", "6"]


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    sampled = run("sample", folder / "rollouts", *MODEL, *SMALL, "--prompts", 48)
    printed = run("train", folder / "rollouts", folder / "head", "--max-epochs", 2)
    return folder, sampled, printed


def test_sample_and_train(trained):
    folder, sampled, printed = trained
    assert "288 rollouts of 48 prompts" in sampled
    assert "held-out loss" in printed
    head = ElhsrRewardHead.from_pretrained(folder / "head")
    assert head.config.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    record = json.loads((folder / "head" / "training.json").read_text())
    assert record["rollouts"]["sampling"]["n"] == 6
    assert record["settings"]["max_epochs"] == 2
    assert record["report"]["train_prompts"] + record["report"]["held_out_prompts"] == 48


def test_a_preset_and_options_that_override_it(trained, tmp_path):
    folder, _, _ = trained
    options = ["--preset", "paper", "--max-epochs", 1, "--learning-rate", "0.001", "--no-gate"]
    run("train", folder / "rollouts", tmp_path, *options, "--layer", 30, "--layer", 3)
    settings = json.loads((tmp_path / "training.json").read_text())["settings"]
    paper = json.loads(json.dumps(dataclasses.asdict(PRESETS["paper"])))
    changes = {"max_epochs": 1, "learning_rate": 0.001, "gate": False, "layers": [3, 30]}
    assert settings == paper | changes
    config = ElhsrRewardHead.from_pretrained(tmp_path).config
    assert (config.layers, config.gate, config.standardization) == ([3, 30], False, None)
    run("train", folder / "rollouts", tmp_path, *options, "--layer", 30, "--standardize")
    assert ElhsrRewardHead.from_pretrained(tmp_path).config.standardization == "per_feature"


def test_refit(trained):
    folder, _, _ = trained
    pooled = ["--pooled-by", folder / "head", "--skip", 48, "--prompts", 16]
    run("sample", folder / "pooled", *MODEL, *SMALL, *pooled)
    sets = ["--rollouts", folder / "rollouts", "--pooled", folder / "pooled"]
    printed = run("refit", folder / "head", folder / "refitted", *sets)
    assert "Held-out loss" in printed
    first, refitted = (ElhsrRewardHead.from_pretrained(folder / name) for name in ("head", "refitted"))
    assert torch.equal(first.weight[0], refitted.weight[0])
    assert not torch.equal(first.weight[1], refitted.weight[1])
    record = json.loads((folder / "refitted" / "training.json").read_text())
    [more] = record["refit"]["rollouts"]
    assert (more["prompts"], more["skip"]) == (16, 48)
    assert record["refit"]["report"]["train_prompts"] == record["report"]["train_prompts"] + 16


def test_refit_on_rollouts_that_the_head_was_not_trained_on(trained, tmp_path):
    folder, _, _ = trained
    shutil.copytree(folder / "head", tmp_path / "head")
    record = json.loads((tmp_path / "head" / "training.json").read_text())
    record["rollouts"]["sampling"]["seed"] = 5
    (tmp_path / "head" / "training.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"trained on different rollouts .* \(sampling differ\)"):
        run("refit", tmp_path / "head", tmp_path / "refitted", "--rollouts", folder / "rollouts")


def test_a_users_own_prompts(tmp_path):
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps({"question": f"Say {i}."}) + "\n" for i in range(12)))
    (tmp_path / "mine.py").write_text(
        "def check(completion, answer):\n"
        "    if len(completion) % 3 == 0:\n"
        "        raise KeyError('odd')\n"
        "    return True\n"
    )
    own = ["--task", tmp_path / "mine.jsonl", "--verifier", f"{tmp_path / 'mine.py'}:check"]
    printed = run("sample", tmp_path / "out", *MODEL, *SMALL, *own, "--prompts", 2)
    failed = [rollout for rollout in RolloutSet(tmp_path / "out").rollouts() if rollout.label is None]
    assert failed
    assert f"the verifier failed on {len(failed)}, first with: Problem" in printed
    assert "KeyError: 'odd'" in printed
    # What could not be verified is not incorrect
    assert "100.0% correct; the verifier failed on" in printed


def test_a_file_that_grew_since_the_training_gives_a_warning(tmp_path, caplog):
    rows = [json.dumps({"question": f"Say {i}."}) + "\n" for i in range(60)]
    (tmp_path / "mine.py").write_text("def check(completion, answer):\n    return len(completion) % 2 == 0\n")
    own = ["--task", tmp_path / "mine.jsonl", "--verifier", f"{tmp_path / 'mine.py'}:check"]
    (tmp_path / "mine.jsonl").write_text("".join(rows[:40]))
    run("sample", tmp_path / "out", *MODEL, *SMALL, *own, "--prompts", 8)
    run("train", tmp_path / "out", tmp_path / "head", "--max-epochs", 1)
    unseen = ["--split", "train", "--skip", 8, "--prompts", 2, "--n", 2, "--max-new-tokens", 4]
    evaluate = ["evaluate", tmp_path / "measured", *MODEL, *own, *unseen, "--head", tmp_path / "head"]
    transformers.logging.enable_propagation()
    with caplog.at_level("WARNING"):
        CliRunner().invoke(app, [str(word) for word in evaluate])
        assert len(RolloutSet(tmp_path / "measured").rollouts()) == 4
        assert "had other rows" not in caplog.text
        (tmp_path / "mine.jsonl").write_text("".join(rows))
        CliRunner().invoke(app, [str(word) for word in evaluate])
    transformers.logging.disable_propagation()
    assert "had other rows when the head learned" in caplog.text


def test_a_head_of_the_first_prompts_is_refitted_on_them(trained, tmp_path):
    folder, _, _ = trained
    run("train", folder / "rollouts", tmp_path / "head", "--max-epochs", 1, "--prompts", 30)
    run("refit", tmp_path / "head", tmp_path / "refitted", "--rollouts", folder / "rollouts")
    report = json.loads((tmp_path / "refitted" / "training.json").read_text())["refit"]["report"]
    assert report["train_prompts"] + report["held_out_prompts"] == 30


def test_convert(tmp_path):
    weights = {"fused_layer.weight": torch.ones(2, 17856), "fused_layer.bias": torch.zeros(2)}
    torch.save(weights, tmp_path / "reward_model.pt")
    printed = run("convert", tmp_path / "reward_model.pt", tmp_path / "converted", *MODEL)
    assert "It has no calibration" in printed
    head = ElhsrRewardHead.from_pretrained(tmp_path / "converted")
    assert torch.equal(head.weight, torch.ones(2, 17856))
    assert head.config.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_evaluate_and_card(trained):
    folder, _, _ = trained
    file = folder / "head" / "evaluation" / "test.json"
    arguments = [folder / "test", *MODEL, *SMALL, "--head", folder / "head", "--prompts", 16, "--numbers", file]
    printed = run("evaluate", *arguments)
    assert "16 prompts (test), n = 6" in printed
    assert "majority vote" in printed
    evaluation = json.loads(file.read_text())
    assert evaluation["prompts"] == 16
    arguments += ["--markdown", folder / "report" / "test.md", "--plot", folder / "report" / "test.png"]
    # asked again, nothing is sampled again and the numbers are the same
    assert run("evaluate", *arguments).split("16 prompts")[-1] == printed.split("16 prompts")[-1]
    assert (folder / "report" / "test.png").read_bytes().startswith(b"\x89PNG")
    run("card", folder / "head")
    card = (folder / "head" / "README.md").read_text()
    assert "35,714 parameters" in card
    assert "16 prompts of the split `test`, best of 6" in card
    assert (folder / "report" / "test.md").read_text() in card


def test_evaluating_a_head_on_its_own_prompts_gives_a_warning(trained, caplog):
    folder, _, _ = trained
    measured = ["evaluate", folder / "own", *MODEL, "--n", 2, "--max-new-tokens", 8, "--head", folder / "head"]
    transformers.logging.enable_propagation()
    with caplog.at_level("WARNING"):
        CliRunner().invoke(app, [str(word) for word in (*measured, "--prompts", 2)])
        assert "trained on some of these prompts" not in caplog.text
        CliRunner().invoke(app, [str(word) for word in (*measured, "--split", "train", "--prompts", 2)])
    transformers.logging.disable_propagation()
    assert "was trained on some of these prompts, where it selects better than elsewhere" in caplog.text


def test_evaluate_with_a_text_reward_model(trained, smollm2_folder, tmp_path, monkeypatch):
    folder, _, _ = trained
    tiny_classifier(vocab_size=49152, pad_token_id=2, max_position_embeddings=512).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(smollm2_folder).save_pretrained(tmp_path)
    arguments = [folder / "test", *MODEL, *SMALL, "--head", folder / "head", "--prompts", 16]
    arguments += ["--text-reward-model", tmp_path, "--numbers", tmp_path / "evaluation.json"]
    printed = run("evaluate", *arguments)
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert {"text reward model", "head and text, worse of ranks", "head and text, min-max"} <= evaluation[
        "accuracy"
    ].keys()
    assert evaluation["text_reward_model"].startswith(f"{tmp_path.name} in bfloat16, ")
    kept = {file: file.stat().st_mtime_ns for file in (folder / "test").glob("text-scores-*.json")}
    assert kept
    assert run("evaluate", *arguments).split("16 prompts")[-1] == printed.split("16 prompts")[-1]
    # By another name it is the same folder
    monkeypatch.chdir(tmp_path)
    run("evaluate", *("." if argument == tmp_path else argument for argument in arguments))
    assert {file: file.stat().st_mtime_ns for file in (folder / "test").glob("text-scores-*.json")} == kept
    # Another model under the same name is another model
    tiny_classifier(vocab_size=49152, pad_token_id=2, max_position_embeddings=512, seed=1).save_pretrained(tmp_path)
    run("evaluate", *arguments)
    assert len(list((folder / "test").glob("text-scores-*.json"))) == 2 * len(kept)
    other = json.loads((tmp_path / "evaluation.json").read_text())
    assert other["text_reward_model"] != evaluation["text_reward_model"]


def test_generate(trained):
    folder, _, _ = trained
    arguments = ["What is 2 + 3?", *MODEL, *SMALL, "--head", folder / "head", "--seed", "3"]
    winner = run("generate", *arguments)
    table = run("generate", *arguments, "--all")
    assert "winner" in table
    assert "P(correct)" in table
    assert winner == run("generate", *arguments)
    assert winner.split()[0] in table


def test_rollouts_of_another_head_are_refused(trained, tmp_path):
    folder, _, _ = trained
    other = shutil.copytree(folder / "head", tmp_path / "other")
    head = ElhsrRewardHead.from_pretrained(other)
    head.bias.data += 1
    head.save_pretrained(other)
    from hf_elhsr.rollouts import RolloutSet

    if not (folder / "test" / "settings.json").is_file():
        run("evaluate", folder / "test", *MODEL, *SMALL, "--head", folder / "head", "--prompts", 16)
    assert "head_sha256" in RolloutSet(folder / "test").settings
    result = CliRunner().invoke(
        app, [str(a) for a in ("evaluate", folder / "test", *MODEL, *SMALL, "--head", other, "--prompts", 16)]
    )
    assert isinstance(result.exception, ValueError)
    assert "head_sha256 differ" in str(result.exception)


@pytest.mark.parametrize("signal", ["logits", "hidden_states"])
def test_a_head_that_pools_determines_the_signal(trained, tmp_path, signal):
    folder, _, _ = trained
    arguments = ("--pooled-by", folder / "head", "--signal", signal, "--prompts", 16)
    with pytest.raises(ValueError, match="--signal and --pooled-by: leave out --signal, which the head determines"):
        run("sample", tmp_path, *MODEL, *SMALL, *arguments)
