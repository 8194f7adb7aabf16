"""The example that fine-tunes a text reward model: what it resumes, and what it refuses."""

import dataclasses
import json
import sys

import fine_tune_text_reward_model
import pytest
import torch
from fine_tune_text_reward_model import fine_tune, last_whole_checkpoint, rollouts_digest
from tiny_tokenizer import tiny_tokenizer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Trainer

from hf_elhsr import ElhsrConfig
from hf_elhsr.rollouts import Rollout, RolloutSet
from hf_elhsr.tasks import ArithmeticTask, find_task


def test_a_checkpoint_that_was_being_written_does_not_count(tmp_path):
    assert last_whole_checkpoint(tmp_path / "none") is None
    for step in (9, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").touch()
    assert last_whole_checkpoint(tmp_path) is None
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").touch()
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_it_resumes_after_a_kill_and_refuses_different_settings(tmp_path, smollm2_folder, monkeypatch):
    problems = ArithmeticTask().problems("train", 10)
    settings = {"task": "arithmetic", "split": "train", "prompts": 10, "prompts_sha256": "0"}
    rollouts = RolloutSet.create(tmp_path / "rollouts", settings, ElhsrConfig(hidden_size=2, layers=[0]))
    texts = [(problem.id, f"It is {number}.", bool(number % 2)) for problem in problems for number in range(4)]
    rows = [Rollout(i, "t", [1], text, None, label, -1.0, n) for n, (i, text, label) in enumerate(texts)]
    rollouts.write_shard(0, rows, torch.zeros(40, 2))
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=49_152, pad_token_id=2, **small)).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(smollm2_folder).save_pretrained(tmp_path / "model")
    whole = fine_tune(rollouts, tmp_path / "whole", str(tmp_path / "model"), epochs=2)
    killed = tmp_path / "killed"
    save = Trainer._save_checkpoint

    def save_once(trainer, *arguments):
        if trainer.state.epoch > 1:
            raise KeyboardInterrupt
        save(trainer, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_checkpoint", save_once)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(rollouts, killed, str(tmp_path / "model"), epochs=2)
    assert last_whole_checkpoint(killed / "checkpoints") == str(killed / "checkpoints" / "checkpoint-2")
    again = fine_tune(rollouts, killed, str(tmp_path / "model"), epochs=2)
    assert (killed / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert [entry.get("eval_loss") for entry in again["log"]] == [entry.get("eval_loss") for entry in whole["log"]]
    assert [entry.get("epoch") for entry in again["log"]] == [1.0, 2.0, 2.0]
    assert json.loads((killed / "training.json").read_text())["epochs"] == 2
    with pytest.raises(ValueError, match="begun with different settings"):
        fine_tune(rollouts, killed, str(tmp_path / "model"), epochs=3)


def test_a_digest_depends_on_everything_that_is_learned_from(tmp_path):
    """Different completions or labels of the same prompts are different rollouts."""

    def digest(name, **changes):
        rollout = Rollout("p", "t", [1, 2], "", None, True, -1.0, 0)
        settings = {"task": "made", "split": "train", "prompts": 1, "prompts_sha256": "0"}
        rollouts = RolloutSet.create(tmp_path / name, settings, ElhsrConfig(hidden_size=2, layers=[0]))
        rollouts.write_shard(0, [dataclasses.replace(rollout, **changes)], torch.zeros(2, 2))
        return rollouts_digest(rollouts)

    digests = [digest("a"), digest("b", token_ids=[1, 3]), digest("c", label=False), digest("d", problem="q")]
    assert len(set(digests)) == 4
    assert digest("e", mean_log_probability=-2.0) == digests[0]


def test_it_reads_rollouts_of_the_users_prompts(tmp_path, monkeypatch):
    rows = [json.dumps({"question": f"w{3 + number} w{4 + number}"}) for number in range(40)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    (tmp_path / "mine.py").write_text("def check(completion, answer):\n    return True\n")
    (tmp_path / "other.jsonl").write_text("\n".join(row.replace("w3 ", "w60 ") for row in reversed(rows)))
    problems = find_task(str(tmp_path / "prompts.jsonl"), f"{tmp_path / 'mine.py'}:check").problems("train", 20)
    settings = {"task": "prompts.jsonl", "split": "train", "prompts": 20, "prompts_sha256": "0"}
    rollouts = RolloutSet.create(tmp_path / "rollouts", settings, ElhsrConfig(hidden_size=2, layers=[0]))
    texts = [(problem.id, f" w{40 + number}", bool(number % 2)) for problem in problems for number in range(2)]
    sampled = [Rollout(i, "t", [1], text, None, label, -1.0, n) for n, (i, text, label) in enumerate(texts)]
    rollouts.write_shard(0, sampled, torch.zeros(40, 2))
    tiny_tokenizer().save_pretrained(tmp_path / "model")

    def read(rollouts, out, model, prompts, *others):
        return {"log": [list(fine_tune_text_reward_model.examples(rollouts, model, prompts, others[-1])[:2])]}

    def run(*options):
        arguments = [tmp_path / "rollouts", tmp_path / "out", "--model", tmp_path / "model", *options]
        monkeypatch.setattr(sys, "argv", ["fine_tune", *map(str, arguments)])
        fine_tune_text_reward_model.main()

    shown = []
    monkeypatch.setattr(fine_tune_text_reward_model, "fine_tune", read)
    monkeypatch.setattr("builtins.print", shown.append)
    own = ["--verifier", f"{tmp_path / 'mine.py'}:check"]
    run("--task", tmp_path / "prompts.jsonl", *own)
    [parts] = json.loads(shown[0])
    read_rows = [(row["input_ids"], row["labels"]) for part in parts for row in part]
    questions = {problem.id: [int(word[1:]) for word in problem.question.split()] for problem in problems}
    expected = [([*questions[i], int(text[2:])], [float(label)]) for i, text, label in texts]
    assert sorted(read_rows) == sorted(expected)
    with pytest.raises(ValueError, match=r"prompts of .* are not prompts of the task 'other.jsonl'"):
        run("--task", tmp_path / "other.jsonl", *own)
    # The task of the name that was recorded, where none is given
    monkeypatch.chdir(tmp_path)
    run(*own)
    assert shown[1] == shown[0]
    with pytest.raises(ValueError, match="needs a verifier"):
        run()
