import pytest

from hf_elhsr.tasks import ArithmeticTask, arithmetic, find_task
from hf_elhsr.tasks.arithmetic import SEEN_TEMPLATES, UNSEEN_TEMPLATES


@pytest.fixture
def task():
    return ArithmeticTask()


def test_splits_share_no_prompt_for_any_seed_and_count(task):
    train = {p.question for seed in (0, 1) for p in task.problems("train", 1500, seed)}
    test = {p.question for seed in (0, 1) for p in task.problems("test", 800, seed)}
    unseen = {p.question for p in task.problems("unseen_templates", 400)}
    assert not train & test
    assert not (train | test) & unseen


def test_unseen_templates_are_kept_out_of_training(task):
    seen = {template.name for template in SEEN_TEMPLATES}
    unseen = {template.name for template in UNSEEN_TEMPLATES}
    assert not seen & unseen
    assert {p.template for p in task.problems("train", 800)} == seen
    assert {p.template for p in task.problems("test", 800)} == seen
    assert {p.template for p in task.problems("unseen_templates", 400)} == unseen


def test_seeded_distinct_and_a_longer_list_starts_with_a_shorter(task):
    problems = task.problems("train", 300)
    assert problems == task.problems("train", 300)
    assert problems[:100] == task.problems("train", 100)
    assert problems != task.problems("train", 300, seed=1)
    assert len({p.id for p in problems}) == len({p.question for p in problems}) == 300


#: Answers computed from the printed question only, one for every template.
BY_HAND = {
    "buys-more": lambda n: n[0] + n[1],
    "is-given": lambda n: n[0] + n[1],
    "two-days": lambda n: n[0] + n[1],
    "both-friends": lambda n: n[0] + n[1],
    "red-blue": lambda n: n[0] + n[1],
    "more-than": lambda n: n[0] + n[1],
    "plants": lambda n: n[0] + n[1],
    "gives-away": lambda n: n[0] - n[1],
    "loses": lambda n: n[0] - n[1],
    "birds": lambda n: n[0] - n[1],
    "sells": lambda n: n[0] - n[1],
    "fewer-than": lambda n: n[0] - n[1],
    "bus": lambda n: n[0] - n[1],
    "boxes": lambda n: n[0] * n[1],
    "each-day": lambda n: n[0] * n[1],
    "price": lambda n: n[0] * n[1],
    "rows": lambda n: n[0] * n[1],
    "shares": lambda n: n[0] // n[1],
    "bags": lambda n: n[0] // n[1],
    "three-people": lambda n: n[0] + n[1] + n[2],
    "boxes-and-loose": lambda n: n[0] * n[1] + n[2],
    "week": lambda n: n[0] + n[1] + n[2],
    "chickens": lambda n: n[0] + n[1],
    "shelf": lambda n: n[0] + n[1],
    "age": lambda n: n[0] + n[1],
    "melts": lambda n: n[0] - n[1],
    "left-to-read": lambda n: n[0] - n[1],
    "legs": lambda n: n[0] * n[1],
    "teams": lambda n: n[0] // n[1],
    "pockets": lambda n: n[0] + n[1] + n[2],
}


def test_answers_follow_from_the_printed_numbers(task):
    import re

    problems = task.problems("train", 400) + task.problems("unseen_templates", 200)
    assert {p.template for p in problems} == BY_HAND.keys()
    for problem in problems:
        numbers = [int(number) for number in re.findall(r"\d+", problem.question)]
        assert int(problem.answer) == BY_HAND[problem.template](numbers), problem.question


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("12 + 5 = 17. She has 17 apples.", "17"),
        ("It costs $1,200.", "1200"),
        ("about 12.50 dollars", "12.5"),
        ("17.0", "17"),
        ("the answer is -3", "-3"),
        ("1. First\n2. Then 30", "30"),
        ("no number at all", None),
        ("", None),
    ],
)
def test_extract(task, completion, answer):
    assert task.extract(completion) == answer


def test_verify(task):
    problem = task.problems("train", 1)[0]
    assert task.verify(problem, f"So the answer is {problem.answer}.0")
    assert not task.verify(problem, f"So the answer is {int(problem.answer) + 1}")
    assert not task.verify(problem, f"{problem.answer}, or rather 999")
    assert not task.verify(problem, "I cannot say.")


def test_errors(task, monkeypatch):
    with pytest.raises(ValueError, match="Unknown split 'dev'"):
        task.problems("dev", 3)
    # This template alone makes 9 x 4 problems
    monkeypatch.setattr(arithmetic, "UNSEEN_TEMPLATES", [t for t in UNSEEN_TEMPLATES if t.name == "teams"])
    assert len(task.problems("unseen_templates", 36)) == 36
    with pytest.raises(ValueError, match="has about 36 problems; ask for fewer than 37"):
        task.problems("unseen_templates", 37)
    with pytest.raises(ValueError, match="Unknown task 'poetry'"):
        find_task("poetry")
