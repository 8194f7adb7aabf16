"""`hf-elhsr tradeoff` and `calibrate` on a set that a head has followed; no language model."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hf_elhsr import ElhsrConfig, ElhsrRewardHead
from hf_elhsr.cli.app import app
from hf_elhsr.decisions.fit import fit_decisions
from hf_elhsr.evaluation.tradeoff import decisions_digest
from hf_elhsr.rollouts import Rollout, RolloutSet
from hf_elhsr.rollouts.shard_arrays import TOKEN_ARRAYS
from made_rollouts import made_rollouts


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def followed(tmp_path):
    """A head with decisions, and rollouts of 50 prompts that it followed."""
    config = ElhsrConfig(hidden_size=2, layers=[0], **fit_decisions(made_rollouts(seed=1)))
    head = ElhsrRewardHead(config)
    head.save_pretrained(tmp_path / "head")
    scored = made_rollouts(prompts=50)
    settings = {"task": "made", "split": "test", "prompts": 50, "sampling": {}, "head_sha256": head.digest()}
    rollouts = RolloutSet.create(tmp_path / "rollouts", settings, config)
    ends = scored.lengths.cumsum()
    rows = [
        Rollout(f"p{number // 6}", "t", [1] * int(length), "", None, bool(label), -1.0, int(end - length))
        for number, (length, label, end) in enumerate(
            zip(scored.lengths.flatten(), scored.labels.flatten(), ends, strict=True)
        )
    ]
    sampled = np.arange(scored.token_rewards.shape[2]) < scored.lengths[..., None]
    present = [name for name in TOKEN_ARRAYS if getattr(scored, name) is not None]
    arrays = {name: torch.from_numpy(getattr(scored, name)[sampled]) for name in present}
    rollouts.write_shard(0, rows, token_arrays=arrays)
    return tmp_path, scored


def test_numbers_table_and_plot(followed):
    folder, scored = followed
    result = run(
        "tradeoff",
        folder / "rollouts",
        *("--head", folder / "head", "--numbers", folder / "new" / "t.json", "--plot", folder / "new" / "t.svg"),
    )
    assert result.exit_code == 0, result.output
    assert "50 prompts (test), n = 6" in " ".join(result.output.split())
    values = json.loads((folder / "new" / "t.json").read_text())
    assert (values["prompts"], values["n"]) == (50, 6)
    assert values["mean_tokens"] == pytest.approx(scored.lengths.mean())
    expected = np.take_along_axis(scored.labels, scored.rewards.argmax(1)[:, None], axis=1).mean()
    assert values["exact"]["value"] == pytest.approx(expected)
    assert "<svg" in (folder / "new" / "t.svg").read_text()
    result = run("tradeoff", folder / "rollouts", "--head", folder / "head", "--json")
    assert json.loads(result.stdout) == values


@pytest.mark.parametrize("done", ["trained", "calibrated"])
def test_prompts_that_the_head_knows_are_refused(followed, done):
    folder, _ = followed
    own = {"task": "made", "split": "test", "skip": 49, "prompts": 9, "sampling": {}}
    record = {"rollouts": own} if done == "trained" else {"rollouts": own | {"split": "train"}, "calibrate": own}
    (folder / "head" / "training.json").write_text(json.dumps(record))
    command = ["tradeoff", folder / "rollouts", "--head", folder / "head", "--json"]
    result = run(*command)
    assert isinstance(result.exception, ValueError)
    assert f"was {done} on prompts of" in str(result.exception)
    own["skip"] = 50
    (folder / "head" / "training.json").write_text(json.dumps(record))
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["decisions_sha256"] == decisions_digest(
        ElhsrConfig.from_pretrained(folder / "head")
    )


def test_rows_that_changed_since_the_training_are_refused(followed):
    """The order of a file's prompts depends on all of them: positions no longer say which ones the head has seen."""
    folder, _ = followed
    rows = {"labelled_by": {"rows_sha256": "a"}}
    file = folder / "rollouts" / "settings.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | rows))
    own = {"task": "made", "split": "test", "skip": 50, "prompts": 9, "sampling": {}}
    for command in (
        ["tradeoff", folder / "rollouts", "--head", folder / "head"],
        ["calibrate", folder / "head", folder / "rollouts"],
    ):
        for digest, refused in (("b", True), ("a", False)):
            record = {"rollouts": own | {"labelled_by": {"rows_sha256": digest}}}
            (folder / "head" / "training.json").write_text(json.dumps(record))
            result = run(*command)
            assert refused == isinstance(result.exception, ValueError), result.output
            assert not refused or "had other rows when the head learned" in str(result.exception)
    # A different split has different prompts, whatever the rows
    record = {"rollouts": own | {"split": "train", "labelled_by": {"rows_sha256": "b"}}}
    (folder / "head" / "training.json").write_text(json.dumps(record))
    assert run("tradeoff", folder / "rollouts", "--head", folder / "head").exit_code == 0


def test_a_head_without_decisions_is_refused(followed):
    folder, _ = followed
    ElhsrRewardHead(ElhsrConfig(hidden_size=2, layers=[0])).save_pretrained(folder / "head")
    result = run("tradeoff", folder / "rollouts", "--head", folder / "head")
    assert isinstance(result.exception, ValueError)
    assert "no calibration" in str(result.exception)


def test_calibrate_writes_the_decisions_of_other_prompts(followed):
    folder, _ = followed
    before = (folder / "head" / "model.safetensors").read_bytes()
    record = {"rollouts": {"task": "made", "split": "test", "skip": 50, "prompts": 9, "sampling": {}}}
    (folder / "head" / "training.json").write_text(json.dumps(record))
    result = run("calibrate", folder / "head", folder / "rollouts", "--json")
    assert result.exit_code == 0, result.output
    fitted = ["calibration", "pruning", "adaptive"]
    assert json.loads(result.stdout) == {"folder": str(folder / "head"), "prompts": 50, "fitted": fitted}
    config = ElhsrConfig.from_pretrained(folder / "head")
    assert [config.calibration.prompts, config.pruning.prompts, config.adaptive.prompts] == [50, 50, 50]
    assert (folder / "head" / "model.safetensors").read_bytes() == before
    assert ElhsrRewardHead.from_pretrained(folder / "head").config.architectures == ["ElhsrRewardHead"]
    recorded = json.loads((folder / "head" / "training.json").read_text())
    assert recorded["rollouts"] == record["rollouts"]
    assert (recorded["calibrate"]["split"], recorded["calibrate"]["prompts"]) == ("test", 50)


def test_calibrate_refuses_prompts_that_the_head_was_trained_on(followed):
    folder, _ = followed
    record = {"rollouts": {"task": "made", "split": "test", "skip": 49, "prompts": 9, "sampling": {}}}
    (folder / "head" / "training.json").write_text(json.dumps(record))
    before = (folder / "head" / "config.json").read_text()
    result = run("calibrate", folder / "head", folder / "rollouts")
    assert isinstance(result.exception, ValueError)
    assert "was trained on prompts of" in str(result.exception)
    assert (folder / "head" / "config.json").read_text() == before
