"""The letter that a completion chooses: forms that models use, with the letter that a reader finds."""

import pytest

from hf_elhsr.tasks import MultipleChoiceTask
from hf_elhsr.tasks.choice_letters import chosen_letter

FORMS = [
    # Articles, pronouns and options that are called incorrect
    ("The answer is a 20% increase, so the letter is C.", "C"),
    ("The answer is B, since option A is wrong.", "B"),
    ("Option A is wrong. B is right, so B.", "B"),
    ("The best choice I can make is (D).", "D"),
    ("The answer is A man walks away", None),
    ("The answer is A because a man walks away.", "A"),
    ("I think the answer is B, but I am not sure.", "B"),
    ("As an option I would take none.", None),
    ("The answer is not A. It is B.", "B"),
    ("The answer cannot be (A), so it must be (E).", "E"),
    ("Options A and B are wrong, option C is not plausible, which leaves option D.", "D"),
    ("Option B isn't right, and option C is incorrect.", None),
    ("We can rule out (A), and (C) is too large.", None),
    ("Option C is a better choice than A.", "C"),
    ("The incorrect answer is A.", None),
    ("It's either C or D. The answer is C or D.", None),
    # Markdown and LaTeX
    ("The correct letter is **C**.", "C"),
    ("**Answer:** C", "C"),
    ("**Answer: (C) 21**", "C"),
    ("### Final Answer\n\n**C**", "C"),
    ("We get 21, hence **C) 21**.\nGood luck!", None),
    ("We get 21, hence **C**.\nGood luck!", "C"),
    ("\\boxed{C}", "C"),
    ("The final answer is $\\boxed{\\text{C}}$.", "C"),
    ("\\[\\boxed{(C)\\ 21}\\]", "C"),
    ("\\boxed{c}", "C"),
    ("The answer is \\textbf{(B)}.", "B"),
    ("Option B looks good, but no: \\boxed{D}", "D"),
    ("\\boxed{21}", None),
    ("\\boxed{A + B}", None),
    # Lines with only a letter, starts and ends
    ("C\n\nBecause 3*7=21.", "C"),
    ("C", "C"),
    ("c", "C"),
    ("(c)", "C"),
    ("C.", "C"),
    ("C) 21", "C"),
    ("C. 21", "C"),
    ("C, because 3 * 7 = 21.", "C"),
    ("C because 3 * 7 = 21.", "C"),
    ("3 * 7 = 21.\nC) 21", "C"),
    ("I choose\nB", "B"),
    ("I would go with option D here.", "D"),
    ("3 * 7 = 21, so B.", "B"),
    # Other phrasings
    ("C is correct", "C"),
    ("C is the correct answer.", "C"),
    ("(C) is right, as 3 * 7 = 21.", "C"),
    ("Option C is the best choice.", "C"),
    ("The angle at C is right.\nThe answer is B.", "B"),
    ("A) looks right, but the answer is (B).", "B"),
    ("Answer: **A**", "A"),
    ("answer: c", "C"),
    ("The correct answer is c.", "C"),
    ("Answer: C - 21", "C"),
    ("Answer - C", "C"),
    ("<answer>C</answer>", "C"),
    ("Answer:\nC) 21", "C"),
    ("The answer is 'C'.", "C"),
    ("The answer to this question is therefore option C.", "C"),
    ("The answer is 21, which is option B.", "B"),
    ("the correct option is C", "C"),
    ("The most plausible ending is D", "D"),
    ("The answer is A. Wait, 3 * 7 = 21. The answer is B.", "B"),
    ("The answer is C: he's tired.", "C"),
    ("Option A: 20, no.\nOption B: 21, yes.\nOption C: 22, no.\n\nSo B is our answer.", "B"),
    ("The answer is (B).\n\nA) is too small, C) is too big.", "B"),
    ("If A is correct, then 3 = 4. So A is not correct.\nHence, option B.", "B"),
    ("Is C correct? No. The answer should be D", "D"),
    # Nothing is chosen
    ("A dog has four legs", None),
    ("nothing", None),
    ("", None),
    ("A) 21\nB) 10\nC) 15", None),
    ("The answer is A + B = 12.", None),
    ("Let A and B be the two pipes. A fills the tank in 3 hours.", None),
    ("The ratio A:B is 3:4", None),
    ("Grade B-minus; vitamin C, e.g. in a lemon", None),
    ("The answer is a", None),
]


@pytest.mark.parametrize(("completion", "letter"), FORMS)
def test_the_letter_that_is_chosen(completion, letter):
    assert chosen_letter(completion) == letter


@pytest.mark.parametrize("words", ["the answer option choice letter ", "A and B, ", "answer the the ", "is \n the "])
def test_a_completion_that_repeats_itself_is_read_in_time(words):
    """Small models repeat themselves; without bounds on repetitions the first text took minutes."""
    assert chosen_letter(words * 3000) in (None, "A")
    assert chosen_letter(words * 3000 + ". The answer is C.") == "C"


def test_letters_that_the_problem_does_not_have_do_not_count():
    task = MultipleChoiceTask.__new__(MultipleChoiceTask)
    problem = task.problem({"question": "3 * 7?", "options": ["20", "21"], "answer": "B"})
    assert chosen_letter("B is right. The answer is D.", "AB") == "B"
    assert task.verify(problem, "B is right. The solution is C.")
    assert not task.verify(problem, "The answer is C.")
    assert not task.verify(problem, "The answer is A, not B.")
    assert not task.verify(problem, "Option B is wrong.")
    assert task.verify(problem, "The answer is (b).")
