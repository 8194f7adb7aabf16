"""Multiple choice: AQuA-RAT, HellaSwag, and any rows with a question, options and the letter of the correct one."""

from typing import Any

from .choice_letters import LETTERS, chosen_letter
from .rows import RowsTask, text_of, texts_of
from .task import Problem, question_id
from .thoughts import without_thoughts


class MultipleChoiceTask(RowsTask):
    """Rows with `question`, `options` (a list of texts) and `answer` (the letter of the correct one)."""

    name = "multiple_choice"

    def problem(self, row: dict[str, Any]) -> Problem:
        return self._asked(text_of(row, "question"), texts_of(row, "options"), text_of(row, "answer"))

    def extract(self, completion: str) -> str | None:
        """The letter that a completion gives as its answer, see [`chosen_letter`]."""
        return chosen_letter(without_thoughts(completion))

    def verify(self, problem: Problem, completion: str) -> bool:
        # The question ends in the list of options
        offered = "".join(letter for letter in LETTERS if f"\n{letter}) " in problem.question)
        return chosen_letter(without_thoughts(completion), offered) == problem.answer

    def _asked(self, question: str, options: list[str], answer: str) -> Problem:
        if not 2 <= len(options) <= len(LETTERS) or answer not in list(LETTERS[: len(options)]):
            raise ValueError(f"Expected 2 to {len(LETTERS)} options and the letter of one, got {options}, {answer!r}.")
        listed = "\n".join(f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))
        text = f"{question}\n\n{listed}\n\nThink step by step, then give the letter of the right answer."
        return Problem(question_id(text), text, answer, self.name)


class AquaRatTask(MultipleChoiceTask):
    """Algebraic word problems (Ling et al., 2017): rows with `question`, `options` ('A)21') and `correct`."""

    name = "aqua_rat"
    splits: tuple[str, ...] = ("train", "validation", "test")
    hub_dataset = ("deepmind/aqua_rat", "raw")

    def problem(self, row: dict[str, Any]) -> Problem:
        options = [option.split(")", 1)[-1].strip() for option in texts_of(row, "options")]
        return self._asked(text_of(row, "question"), options, text_of(row, "correct"))


class HellaSwagTask(MultipleChoiceTask):
    """How a scene continues (Zellers et al., 2019): rows with `ctx`, `endings` and `label` ('0' to '3')."""

    name = "hellaswag"
    splits: tuple[str, ...] = ("train", "validation")
    hub_dataset = ("Rowan/hellaswag", None)

    def problem(self, row: dict[str, Any]) -> Problem:
        question = f"Which ending is the most plausible?\n\n{text_of(row, 'ctx')} ..."
        label = str(row["label"])
        letter = dict(zip("0123456789", LETTERS, strict=True)).get(label, label)
        return self._asked(question, texts_of(row, "endings"), letter)
