"""Which prompts are sampled: those that fit the model's context, the same ones whenever a run is resumed."""

import hashlib
import json

import pytest
import torch
from killed_sampling import TinyTask
from tiny_tokenizer import tiny_tokenizer

from hf_elhsr import enable_best_of_n
from hf_elhsr.evaluation import evaluate_rollouts, evaluation_markdown
from hf_elhsr.rollouts import (
    PromptFormat,
    Recording,
    RolloutSet,
    SamplingArguments,
    TransformersEngine,
    sample_rollouts,
)
from hf_elhsr.tasks import JsonLinesTask, Problem
from tiny_models import tiny_head, tiny_model

ARGUMENTS = SamplingArguments(n=2, max_new_tokens=3, prompts_per_batch=2)


class Lengths(TinyTask):
    """Problems whose prompts have these numbers of tokens."""

    def __init__(self, *lengths):
        self.lengths = lengths

    def problems(self, split, count, seed=0):
        texts = [" ".join(f"w{i + 5 + j % 40}" for j in range(length)) for i, length in enumerate(self.lengths)]
        return [Problem(f"p{i}", text, "", "t") for i, text in enumerate(texts)][:count]


@pytest.fixture(scope="module")
def language_model():
    return enable_best_of_n(tiny_model("gpt2"))


def sample(language_model, folder, task, **options):
    options = {"prompts": len(getattr(task, "lengths", ())) or 4, "arguments": ARGUMENTS} | options
    return sample_rollouts(language_model, tiny_tokenizer(), task, folder, **options)


def test_a_completion_may_end_with_the_context(language_model, tmp_path):
    """The last sampled token is fed to the model as well: 125 + 3 tokens fill a context of 128."""
    sampled = sample(language_model, tmp_path / "fits", Lengths(4, 125))
    sampled.check_complete()
    assert "skipped_overlong" not in sampled.settings
    with pytest.raises(
        ValueError, match=r"1 of 2 prompts do not fit .* 128 tokens with max_new_tokens=3: problem 'p1'"
    ):
        sample(language_model, tmp_path / "does_not", Lengths(4, 126))
    assert not (tmp_path / "does_not").exists()


def test_all_overlong_prompts_are_told_before_anything_is_sampled(language_model, tmp_path):
    handle = language_model.register_forward_pre_hook(lambda *args: pytest.fail("the model was run"))
    with pytest.raises(ValueError, match="3 of 5 prompts do not fit") as raised:
        sample(language_model, tmp_path / "out", Lengths(4, 126, 5, 127, 200))
    handle.remove()
    for place in ("'p1' (126 tokens)", "'p3' (127 tokens)", "'p4' (200 tokens)", "--skip-overlong"):
        assert place in str(raised.value)
    with pytest.raises(ValueError, match=r"lower max_new_tokens to at most 2, or leave"):
        sample(language_model, tmp_path / "out", Lengths(4, 126))


def test_overlong_prompts_are_skipped_and_counted(language_model, tmp_path):
    task = Lengths(4, 126, 5, 127, 6)
    sampled = sample(language_model, tmp_path, task, skip_overlong=True)
    sampled.check_complete()
    assert list(dict.fromkeys(rollout.problem for rollout in sampled.rollouts())) == ["p0", "p2", "p4"]
    # The range of prompts that a head has seen stays known
    assert (sampled.settings["prompts"], sampled.settings["skipped_overlong"]) == (5, 2)
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    (tmp_path / "shard-00001.jsonl").unlink()
    with pytest.raises(ValueError, match=r"of 2 of 3 prompts"):
        RolloutSet(tmp_path).check_complete()
    sample(language_model, tmp_path, task, skip_overlong=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == files
    with pytest.raises(ValueError, match="2 of 2 prompts do not fit"):
        sample(language_model, tmp_path / "none", Lengths(126, 127), skip_overlong=True)


def test_evaluations_count_skipped_prompts(language_model, tmp_path):
    recording = Recording(head=tiny_head(language_model))
    task = Lengths(4, 126, 5, 127, 6, 7)
    evaluation = evaluate_rollouts(
        sample(language_model, tmp_path, task, skip_overlong=True, recording=recording, prompts=6)
    )
    assert (evaluation.prompts, evaluation.unverified, evaluation.overlong) == (4, 0, 2)
    assert "2 more are left out: they are too long." in evaluation_markdown(evaluation)


def test_where_none_is_overlong_skipping_changes_nothing(language_model, tmp_path):
    sampled = sample(language_model, tmp_path, Lengths(4, 5))
    assert sample(language_model, tmp_path, Lengths(4, 5), skip_overlong=True).settings == sampled.settings


def test_a_row_that_cannot_be_sampled_is_named(language_model, tmp_path):
    file = tmp_path / "prompts.jsonl"
    rows = [{"question": "" if i == 7 else f"w{i + 5} w6"} for i in range(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = JsonLinesTask(file, lambda completion, answer: True)
    split = next(split for split in task.splits if has_empty(task, split))
    count = sum(1 for problem in everything(task, split))
    with pytest.raises(ValueError, match=rf"1 of {count} questions have no tokens.*: row 8\. Remove them"):
        sample(language_model, tmp_path / "out", task, split=split, prompts=count)
    rows[7]["question"] = "w5 " * 130
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = JsonLinesTask(file, lambda completion, answer: True)
    split = next(
        split for split in task.splits if any(len(problem.question) > 99 for problem in everything(task, split))
    )
    count = len(everything(task, split))
    with pytest.raises(ValueError, match=r"row 8 \(130 tokens\)"):
        sample(language_model, tmp_path / "out", task, split=split, prompts=count)


def has_empty(task, split):
    return any(not problem.question for problem in everything(task, split))


def everything(task, split):
    for count in range(20, 0, -1):
        try:
            return task.problems(split, count)
        except ValueError:
            continue
    return []


DATED = "{{ strftime_now('%j%f') }} {% for message in messages %}w9 {{ message['content'] }}{% endfor %}"


def dated_tokenizer(day):
    """A tokenizer whose chat template prints a date, here a word for each day."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = DATED
    render = tokenizer.apply_chat_template

    def on_that_day(*args, **kwargs):
        return [f"w{day} {text.partition(' ')[2]}" for text in render(*args, **kwargs)]

    tokenizer.apply_chat_template = on_that_day
    return tokenizer


def test_a_run_is_resumed_on_another_day(language_model, tmp_path):
    def on_day(day, task=None):
        task = TinyTask() if task is None else task
        return sample_rollouts(language_model, dated_tokenizer(day), task, tmp_path, prompts=4, arguments=ARGUMENTS)

    on_day(10)
    first = (tmp_path / "shard-00000.jsonl").read_bytes()
    (tmp_path / "shard-00001.jsonl").unlink()
    on_day(11).check_complete()
    assert (tmp_path / "shard-00000.jsonl").read_bytes() == first
    # But not with other questions, or another template
    with pytest.raises(ValueError, match=r"\(prompts_sha256 differ\)"):
        on_day(11, task=Lengths(4, 5, 6, 7))
    other = dated_tokenizer(11)
    other.chat_template = DATED.replace("w9", "w8")
    with pytest.raises(ValueError, match=r"\(prompts_sha256 differ\)"):
        sample_rollouts(language_model, other, TinyTask(), tmp_path, prompts=4, arguments=ARGUMENTS)


def test_a_set_of_an_earlier_version_is_resumed(language_model, tmp_path):
    """It has a hash of the prompts' token ids."""
    sampled = sample(language_model, tmp_path, TinyTask())
    ids = [[int(word.removeprefix("w")) for word in problem.question.split()] for problem in TinyTask().problems("", 4)]
    before = hashlib.sha256(str([[own] for own in ids]).encode()).hexdigest()
    assert sampled.settings["prompts_sha256"] != before
    settings = sampled.settings | {"prompts_sha256": before}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "shard-00001.jsonl").unlink()
    resumed = sample(language_model, tmp_path, TinyTask())
    resumed.check_complete()
    assert resumed.settings == settings
    # Compared as they were then
    (tmp_path / "settings.json").write_text(json.dumps(settings | {"prompts_sha256": "0"}))
    with pytest.raises(ValueError, match=r"\(prompts_sha256 differ\)"):
        sample(language_model, tmp_path, TinyTask())


def test_what_the_chat_template_is_told_is_part_of_a_set(language_model, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] }} {% endfor %}{{ 'w9' if loud else 'w10' }}"
    )

    def told(prompt_format):
        engine = TransformersEngine(language_model, tokenizer, prompt_format)
        return sample_rollouts(engine, None, TinyTask(), tmp_path, prompts=2, arguments=ARGUMENTS)

    sampled = told(PromptFormat("w20", {"loud": True}))
    assert sampled.settings["system_prompt"] == "w20"
    assert sampled.settings["template_options"] == {"loud": True}
    with pytest.raises(ValueError, match=r"\(prompts_sha256, template_options differ\)"):
        told(PromptFormat("w20"))


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    "saved", [{"do_sample": False}, {"num_beams": 4}, {"num_beams": 4, "early_stopping": True}, {"top_k": 1}]
)
def test_rollouts_are_sampled_whatever_the_models_config_says(tmp_path, saved, n):
    model = enable_best_of_n(tiny_model())
    expected = sample(model, tmp_path / "plain", TinyTask(), arguments=SamplingArguments(n=n, max_new_tokens=3))
    for name, value in saved.items():
        setattr(model.generation_config, name, value)
    sampled = sample(model, tmp_path / "saved", TinyTask(), arguments=SamplingArguments(n=n, max_new_tokens=3))
    assert [r.token_ids for r in sampled.rollouts()] == [r.token_ids for r in expected.rollouts()]


@pytest.mark.parametrize("name", ["n", "temperature", "top_p", "top_k", "max_new_tokens", "prompts_per_batch", "seed"])
@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        "0.5",
        None,
        [1],
        True,
        1 + 2j,
        10**40,
        10**5000,
        -1e300,
        torch.ones(2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_numbers_that_cannot_be_sampled_with_are_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name}=") as raised:
        SamplingArguments(**{name: value})
    assert len(str(raised.value)) < 300


def test_numbers_at_the_ends_of_what_is_allowed():
    SamplingArguments(n=1, temperature=1, top_p=1, top_k=0, max_new_tokens=1, prompts_per_batch=1, seed=-(2**42))
    SamplingArguments(top_p=0.0, temperature=1e-3, seed=2**42)
    torch.manual_seed(SamplingArguments(seed=2**42).seed_of_batch(10**9))
    torch.manual_seed(SamplingArguments(seed=-(2**42)).seed_of_batch(0))
