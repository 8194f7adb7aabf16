"""Tasks: splits without a common prompt, and verifiers that agree with answers worked out by hand."""

import json
import re
from pathlib import Path

import pytest

from hf_elhsr.tasks import (
    AquaRatTask,
    CoinFlipTask,
    Gsm8kTask,
    HellaSwagTask,
    JsonLinesTask,
    MathTask,
    ReasoningGymTask,
    find_task,
    verify,
)
from hf_elhsr.tasks.task import question_id, split_of

GSM8K = Path(__file__).parents[1] / "data" / "gsm8k.jsonl"


def write_rows(folder, *rows):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def all_problems(task, total):
    """All problems of a file, whose rows are assigned to splits by a hash."""
    problems = []
    for split in task.splits[:1] + task.splits[-1:]:
        for count in range(total, -1, -1):
            try:
                problems += task.problems(split, count)
                break
            except ValueError:
                continue
    assert len(problems) == total
    return problems


def test_ids_and_splits_never_change():
    """Heads were trained on the questions of "train": with a different rule they would be tested on these."""
    questions = ("one", "two", "three", "four", "five", "six")
    assert [split_of(question) for question in questions] == ["train"] * 3 + ["test"] * 3
    assert question_id("one") == "7692c3ad3540bb80"


def test_coin_flips_by_hand():
    task = CoinFlipTask()
    problems = task.problems("train", 200)
    for problem in problems:
        flips = len(re.findall(r"\w flips the coin", problem.question))
        assert problem.answer == ("yes" if flips % 2 == 0 else "no")
    assert {problem.answer for problem in problems} == {"yes", "no"}
    assert task.verify(problems[0], f"First ... no, wait. {problems[0].answer.title()}.")
    assert not task.verify(problems[0], "Nobody knows.")
    assert task.extract("Notes, nobody") is None


@pytest.mark.parametrize("task", [CoinFlipTask(), ReasoningGymTask("spell_backward")], ids=lambda task: task.name)
def test_made_problems_are_distinct_and_never_in_two_splits(task):
    train, test = task.problems("train", 300), task.problems("test", 60)
    assert len({problem.question for problem in train + test}) == 360
    assert train[:20] == task.problems("train", 20)
    other = task.problems("test", 60, seed=1)
    assert other != test
    assert not {problem.id for problem in other} & {problem.id for problem in train}
    with pytest.raises(ValueError, match="Unknown split 'dev'"):
        task.problems("dev", 1)


def test_a_split_with_too_few_coin_flips_is_refused():
    task = CoinFlipTask(people=2)
    assert len(task.problems("test", 300)) == 300
    with pytest.raises(ValueError, match=r"'test' has about 3\d\d problems; ask for fewer than 1000"):
        task.problems("test", 1000)


def test_gsm8k_from_a_file():
    task = Gsm8kTask(GSM8K)
    problems = {problem.question.split()[0]: problem for problem in all_problems(task, 6)}
    natalia = problems["Natalia"]
    assert natalia.answer == "72"
    for correct in ("So she sold \\boxed{72} clips.", "The answer is 72.", "= 36 + 36 = 72", "\\boxed{72.0}"):
        assert task.verify(natalia, correct), correct
    for incorrect in ("\\boxed{73}", "72 or rather \\boxed{27}", "I do not know."):
        assert not task.verify(natalia, incorrect), incorrect
    # Equal answers are one vote, however they are written
    assert task.extract("\\boxed{72}") == task.extract("The answer is 72.") == "72"
    for one, other in (
        ("72", r"\$72.00"),
        ("18.5", r"\frac{37}{2}"),
        (r"50\%", "0.5"),
        (r"1.5 \times 10^3", "1{,}500.0"),
    ):
        assert task.extract(f"\\boxed{{{one}}}") == task.extract(f"\\boxed{{{other}}}") is not None, one
    # Answers that are not fractions stay, and numbers too large to write out are not computed
    assert task.extract(r"\boxed{2\sqrt{2}}") == "2*sqrt(2)"
    assert task.extract(r"\boxed{10^{10^{10}}}") == "10**(10**10)"
    assert task.extract("I do not know.") is None


def test_math_answers_are_compared_as_mathematics(tmp_path):
    row = {
        "problem": "What?",
        "solution": "Thus $x = \\boxed{\\frac{\\sqrt{3}}{2}}$.",
        "level": "Level 3",
        "type": "Algebra",
    }
    task = MathTask(write_rows(tmp_path, row))
    [problem] = all_problems(task, 1)
    assert problem.answer == "\\frac{\\sqrt{3}}{2}"
    assert problem.template == "Algebra/Level 3"
    assert task.verify(problem, "It is $\\boxed{\\sqrt{3}/2}$.")
    assert not task.verify(problem, "It is $\\boxed{\\sqrt{2}/2}$.")
    for solution, answer in (("so \\boxed 5.", "5"), ("is \\fbox{x^{2}} and \\boxed{y}", "y"), ("\\fbox{{1}}", "{1}")):
        assert task.problem({"problem": "?", "solution": solution}).answer == answer
    for solution in ("no box", "\\boxed{1"):
        with pytest.raises(ValueError, match="Expected a solution"):
            task.problem({"problem": "?", "solution": solution})


def test_errors_of_math_verify_are_failures_not_incorrect_answers(monkeypatch):
    """By default the library turns them into False."""
    import math_verify.grader

    def broken(*args, **kwargs):
        raise RecursionError("too deep")

    task = Gsm8kTask(GSM8K)
    problem = all_problems(task, 6)[0]
    monkeypatch.setattr(math_verify.grader, "sympy_expr_eq", broken)
    # Not through `verify`, in whose process the library is as it was
    with pytest.raises(RecursionError, match="too deep"):
        task.verify(problem, "It is \\boxed{1}.")


def test_multiple_choice(tmp_path):
    aqua = AquaRatTask(write_rows(tmp_path, {"question": "3 * 7?", "options": ["A)21", "B)10"], "correct": "A"}))
    [problem] = all_problems(aqua, 1)
    assert "A) 21\nB) 10" in problem.question
    for completion, letter in (
        ("A) looks right, but the answer is (B).", "B"),
        ("Answer: **A**", "A"),
        ("I choose\nB", "B"),
        ("the correct option is C", "C"),
        ("A dog has four legs", None),
        ("nothing", None),
    ):
        assert aqua.extract(completion) == letter, completion
    swag = HellaSwagTask(
        write_rows(tmp_path, {"ctx": "He sits", "endings": ["a", "b", "c", "d"], "label": "2", "split": "x"})
    )
    # The splits on the Hub are "train" and "validation"; those of a file follow from a hash
    assert swag.splits == ("train", "test")
    [problem] = all_problems(swag, 1)
    assert problem.answer == "C"
    assert swag.verify(problem, "The answer is C.")


def test_reasoning_gym_uses_its_own_verifier():
    task = ReasoningGymTask("spell_backward", min_word_len=3, max_word_len=4)
    for problem in task.problems("train", 5):
        word = re.search(r"\): (\w+)", problem.question).group(1)
        assert task.verify(problem, f"Thinking...\nAnswer: {word[::-1]}")
        assert task.verify(problem, f"Answer: {word}. No, the answer is: **{word[::-1]}**.")
        assert not task.verify(problem, f"Answer: {word[::-1]}x")
        assert task.verify(problem, word[::-1])
        assert not task.verify(problem, f"{word[::-1]}\n{word[::-1]}")
    with pytest.raises(ValueError, match="cannot make the dataset 'nonsense'"):
        ReasoningGymTask("nonsense")


def test_reasoning_gym_takes_numbers_out_of_sentences():
    task = find_task("reasoning_gym:chain_sum:min_terms=2,max_terms=2,min_digits=4,max_digits=4")
    problem = task.problems("train", 1)[0]
    correct = task._entries[int(problem.answer)]["answer"]
    marked = f"The answer to this problem is {correct}, not 5."
    equations = (f"The answer is 6 + 9 = {correct}.", f"Answer: (6 - 1) \u00d7 3 = 15 = {correct}, and 1 = 1")
    for text in (correct, f"The sum is {correct}.", f"1 + 2 = {correct}", marked, *equations):
        assert task.extract(text) == correct, text
        assert task.verify(problem, text)
    assert task.extract("Answer: 1,234.") == "1234"
    assert task.extract("The answer is 20, which is a sum of two. 58 + 26 = 84") == "20"
    assert task.extract("The answer is -7 = -7") == "-7"
    assert not task.verify(problem, f"{correct} and then 7")
    assert task.extract("no number at all") is None
    again = find_task(task.name)
    assert again.problems("train", 3) == task.problems("train", 3)
    assert problem.question != find_task("reasoning_gym:chain_sum").problems("train", 1)[0].question
    # Values with commas are restored from the task's name
    listed = ReasoningGymTask("basic_arithmetic", operators=["+", "-"], max_terms=3)
    assert find_task(listed.name).problems("train", 3) == listed.problems("train", 3)
    for settings in ("chain_sum:max_terms", "chain_sum:=2", "chain_sum:dataset=3"):
        with pytest.raises(ValueError, match="settings of a dataset as name=value"):
            find_task(f"reasoning_gym:{settings}")


def test_a_users_prompts_and_verifier(tmp_path):
    rows = write_rows(tmp_path, *({"question": f"Say {i}", "answer": str(i)} for i in range(40)))
    verifier = tmp_path / "mine.py"
    verifier.write_text("def check(completion, answer):\n    return answer in completion.split()\n")
    task = find_task(str(rows), f"{verifier}:check")
    problems = all_problems(task, 40)
    assert {problem.answer for problem in problems} == {str(i) for i in range(40)}
    assert task.verify(problems[0], f"it is {problems[0].answer} then")
    assert verify(task, problems[0], f"it is {problems[0].answer} then") == (True, None)
    assert task.extract("anything") is None
    for place in ("mine.py", str(verifier), f"{verifier}:other", "nothing.py:check"):
        with pytest.raises(ValueError, match=r"Expected a function|has no function"):
            find_task(str(rows), place)


def test_a_users_final_answers(tmp_path):
    rows = write_rows(tmp_path, *({"question": f"Say {i}", "answer": str(i)} for i in range(4)))
    code = tmp_path / "mine.py"
    code.write_text(
        "def extract(completion):\n    return completion.split()[-1]\n"
        "def check(completion, answer):\n    return extract(completion) == answer\n"
    )
    task = find_task(str(rows), f"{code}:check", f"{code}:extract")
    problem = all_problems(task, 4)[0]
    assert verify(task, problem, f"it is {problem.answer}") == (True, problem.answer)
    with pytest.raises(ValueError, match=r"no function 'find'"):
        find_task(str(rows), f"{code}:check", f"{code}:find")
    with pytest.raises(ValueError, match="finds final answers itself"):
        find_task("arithmetic", extract=f"{code}:extract")


def test_what_labels_rollouts_of_files_is_recorded(tmp_path):
    rows = write_rows(tmp_path, {"question": "x", "answer": "#### 1"})
    code = tmp_path / "mine.py"
    code.write_text("def check(completion, answer):\n    return True\n")

    def labelled():
        own = find_task(str(rows), f"{code}:check")
        assert own.name == "rows.jsonl"
        assert own.labelled_by["verifier"] == "mine.py:check"
        return own.labelled_by

    first = labelled()
    assert labelled() == first
    code.write_text("def check(completion, answer):\n    return False\n")
    second = labelled()
    assert second != first
    write_rows(tmp_path, {"question": "x", "answer": "#### 2"})
    assert labelled() != second
    # The answers in a file can change as well, and differ from those on the Hub
    gsm8k = find_task(f"gsm8k:{rows}")
    assert gsm8k.name == "gsm8k:rows.jsonl"
    assert gsm8k.labelled_by["rows_sha256"] == labelled()["rows_sha256"]
    assert Gsm8kTask().name == "gsm8k"
    assert Gsm8kTask().labelled_by == {}


def test_repeated_prompts_of_the_hub_are_dropped(monkeypatch):
    """Public datasets have repeated prompts, and their users cannot remove them."""
    rows = [{"ctx": ctx, "endings": ["a", "b"], "label": "0"} for ctx in ("one", "two", "one")]
    asked = []

    def load_rows(*arguments):
        asked.append(arguments)
        return rows

    monkeypatch.setattr("hf_elhsr.tasks.rows.load_rows", load_rows)
    assert len(HellaSwagTask().problems("validation", 2)) == 2
    assert asked == [("Rowan/hellaswag", None, "validation")]
    with pytest.raises(ValueError, match="has 2 problems: ask for"):
        HellaSwagTask().problems("train", 3)


def test_tasks_and_files_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a verifier"):
        find_task("mine.jsonl")
    with pytest.raises(ValueError, match="has its own verifier"):
        find_task("arithmetic", "mine.py:check")
    with pytest.raises(ValueError, match=r"Unknown task 'poetry': expected one of arithmetic, coin_flip, gsm8k"):
        find_task("poetry")
    twice = JsonLinesTask(write_rows(tmp_path, *[{"question": "same"}] * 2), lambda completion, answer: True)
    with pytest.raises(ValueError, match=r"Row 2 .* repeats the prompt 'same'"):
        twice.problems("train", 1)
    with pytest.raises(ValueError, match="needs a file"):
        find_task("multiple_choice")
    with pytest.raises(ValueError, match=r"Row 1 .* has no field 'question'; its fields are \['prompt'\]"):
        find_task(f"gsm8k:{write_rows(tmp_path, {'prompt': 'x'})}").problems("train", 1)
    (tmp_path / "rows.jsonl").write_text('{"question": "x", "answer": "1"}\n{half')
    with pytest.raises(ValueError, match=r"Line 2 of .* is not JSON"):
        find_task(f"gsm8k:{tmp_path / 'rows.jsonl'}").problems("train", 1)
    with pytest.raises(ValueError, match=r"ends in '#### NUMBER'"):
        find_task(f"gsm8k:{write_rows(tmp_path, {'question': 'x', 'answer': '1'})}").problems("train", 1)
    with pytest.raises(ValueError, match=r"has [01] problems"):
        JsonLinesTask(write_rows(tmp_path, {"question": "x"}), lambda completion, answer: True).problems("train", 2)


@pytest.mark.parametrize(
    ("task", "row", "field"),
    [
        ("own", {"question": 5}, "'question', got int 5"),
        ("own", {"question": None}, "'question', got NoneType None"),
        ("gsm8k", {"question": ["x"], "answer": "#### 1"}, "'question', got list"),
        ("gsm8k", {"question": "x", "answer": 1}, "'answer', got int 1"),
        ("math", {"problem": "x", "solution": 1}, "'solution', got int 1"),
        ("multiple_choice", {"question": 1, "options": ["a", "b"], "answer": "A"}, "'question', got int 1"),
        ("multiple_choice", {"question": "x", "options": "ab", "answer": "A"}, "'options', got str 'ab'"),
        ("multiple_choice", {"question": "x", "options": ["a", None], "answer": "A"}, "'options', got list"),
        ("multiple_choice", {"question": "x", "options": ["a", "b"], "answer": 0}, "'answer', got int 0"),
        ("multiple_choice", {"question": "x", "options": ["a", "b"], "answer": "AB"}, "the letter of one, got .* 'AB'"),
        ("hellaswag", {"ctx": "x", "endings": ["a", "b"], "label": "2"}, "the letter of one, got .* 'C'"),
        ("hellaswag", {"ctx": "x", "endings": ["a", "b"], "label": ""}, "the letter of one, got .* ''"),
    ],
)
def test_a_field_of_an_unexpected_type_is_reported_with_its_row(tmp_path, task, row, field):
    file = write_rows(tmp_path, row)
    made = JsonLinesTask(file, lambda completion, answer: True) if task == "own" else find_task(f"{task}:{file}")
    with pytest.raises(ValueError, match=f"^Row 1 of the task .*: Expected .*{field}"):
        made.problems("train", 1)


def test_numbers_may_be_options(tmp_path):
    task = find_task(f"multiple_choice:{write_rows(tmp_path, {'question': '?', 'options': [20, 21], 'answer': 'B'})}")
    assert "A) 20\nB) 21" in all_problems(task, 1)[0].question


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["no mark", "mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["unix", "windows"])
def test_json_lines_as_other_programs_write_them(tmp_path, mark, end):
    """Strings may contain line separators; only the line feed ends a line."""
    questions = ["one\u2028two", "three\u2029four", "five\x85six", "gr\u00fcn"]
    lines = [json.dumps({"question": question}, ensure_ascii=False).encode() for question in questions]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(mark + end.join([*lines, b"", b""]))
    problems = all_problems(JsonLinesTask(file, lambda completion, answer: True), 4)
    assert {problem.question for problem in problems} == set(questions)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes('{"question": "gr\u00fcn"}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"rows.jsonl' is not UTF-8 .*: save it"):
        JsonLinesTask(file, lambda completion, answer: True).problems("train", 1)
