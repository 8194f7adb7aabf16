"""What a language model writes while it thinks is not its answer, and is stored all the same."""

import json

import pytest
from tiny_task import TinyTask
from tiny_tokenizer import tiny_tokenizer

from hf_elhsr import ElhsrConfig, enable_best_of_n
from hf_elhsr.rollouts import Recording, SamplingArguments, relabel_rollouts, sample_rollouts
from hf_elhsr.tasks import ArithmeticTask, CoinFlipTask, Gsm8kTask, Problem, ReasoningGymTask, find_task, verify
from hf_elhsr.tasks.multiple_choice import MultipleChoiceTask
from hf_elhsr.tasks.thoughts import begins_thought, without_thoughts
from tiny_models import tiny_model


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("no thought, 5 < 6", "no thought, 5 < 6"),
        ("<think>5?</think>6", "6"),
        ("<think>\n5?\n</think>\n\nIt is 6.", "It is 6."),
        ("<think>\n\n</think>\n\n6", "6"),
        # The prompt began it
        ("5?\n</think>\n6", "6"),
        ("<think>it is 5", ""),
        ("It is 6. <think>or 5?", "It is 6. "),
        ("<think>5</think>It is <think>7?</think>6", "It is 6"),
        # Marks that are spoken of
        ("<think>In <think> I write 5</think>6", "6"),
        ("<think>a<think>b</think>5</think>6", "6"),
        ("<thinking>5</thinking>6", "6"),
        ("[THINK]5[/THINK]6", "6"),
        ("", ""),
    ],
)
def test_what_is_left_of_a_completion(completion, answer):
    assert without_thoughts(completion) == answer
    assert without_thoughts(answer) == answer


def test_a_thought_that_the_prompt_began():
    assert without_thoughts("it is 5", in_thought=True) == ""
    assert without_thoughts("it is 5</think>6", in_thought=True) == "6"
    assert begins_thought("user\n2 + 2?\nassistant\n<think>\n")
    assert not begins_thought("user\n2 + 2?\nassistant\n<think>\n\n</think>\n\n")
    assert not begins_thought("Write <think> here: ")


def problem(answer):
    return Problem("id", "Which?\n\nA) a\nB) b", answer, "family")


@pytest.mark.parametrize("made", ["arithmetic", "coin_flip", "gsm8k", "multiple_choice", "own"])
def test_every_task_reads_the_answer_alone(made, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"question": "x"}) + "\n")
    (tmp_path / "mine.py").write_text("def check(completion, answer):\n    return answer in completion\n")
    task, right, wrong = {
        "arithmetic": (ArithmeticTask(), "6", "5"),
        "coin_flip": (CoinFlipTask(), "yes", "no"),
        "gsm8k": (Gsm8kTask(rows), "6", "5"),
        "multiple_choice": (MultipleChoiceTask(rows), "B", "A"),
        "own": (find_task(str(rows), f"{tmp_path / 'mine.py'}:check"), "six", "five"),
    }[made]
    asked = problem(right)
    for label in (task.verify, lambda asked, completion: verify(task, asked, completion)[0]):
        assert label(asked, f"<think>The answer is {wrong}.</think>The answer is {right}.")
        assert not label(asked, f"<think>The answer is {right}.</think>The answer is {wrong}.")
        assert not label(asked, f"<think>The answer is {right}.")
    assert task.extract(f"<think>The answer is {right}.") is None


def test_an_answer_of_reasoning_gym_is_not_a_thought():
    assert ReasoningGymTask("spell_backward").extract("<think>Answer: abc</think>\nAnswer: cba") == "cba"


def test_prompts_that_begin_a_thought_are_recorded_and_texts_are_stored_whole(tmp_path):
    class Answered(TinyTask):
        def verify(self, problem, completion):
            return completion != ""

        def extract(self, completion):
            return completion or None

    model, tokenizer = enable_best_of_n(tiny_model()), tiny_tokenizer()
    arguments, recording = SamplingArguments(n=2, max_new_tokens=4), Recording(config=ElhsrConfig.for_model(model))

    def sample(name):
        return sample_rollouts(
            model, tokenizer, Answered(), tmp_path / name, prompts=2, arguments=arguments, recording=recording
        )

    plain = sample("plain")
    assert "begins_thoughts" not in plain.settings
    assert all(rollout.label and rollout.answer == rollout.text for rollout in plain.rollouts())
    tokenizer.chat_template = "{{ messages[0]['content'] }} <think>\n"
    tokenizer.add_tokens(["<think>"])
    model.resize_token_embeddings(len(tokenizer))
    recording = Recording(config=ElhsrConfig.for_model(model))
    for thinking in (sample("thinking"), relabel_rollouts(tmp_path / "thinking", Answered())):
        assert thinking.settings["begins_thoughts"] is True
        assert [(rollout.label, rollout.answer) for rollout in thinking.rollouts()] == [(False, None)] * 4
        assert all(rollout.text for rollout in thinking.rollouts())
