"""GSM8K and MATH: answers in mathematical notation, compared by the library math-verify."""

from typing import Any

from .rows import RowsTask, question_id
from .task import Problem

_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."


class MathTask(RowsTask):
    """Competition problems (Hendrycks et al., 2021): rows with `problem`, `solution`, and maybe `level` and `type`."""

    name = "math"
    hub_dataset = ("DigitalLearningGmbH/MATH-lighteval", "default")

    def problem(self, row: dict[str, Any]) -> Problem:
        """The reference answer is what the solution has in its last \\boxed{}."""
        question = f"{row['problem']}\n\n{_INSTRUCTION}"
        family = "/".join(str(row[name]) for name in ("type", "level") if row.get(name))
        return Problem(question_id(question), question, _last_boxed(row["solution"]), family or self.name)

    def extract(self, completion: str) -> str | None:
        """The final answer, in sympy's notation where it can be parsed, so that equal answers count as one vote."""
        parsed = _parsed(completion)
        return str(parsed[0]) if parsed else None

    def verify(self, problem: Problem, completion: str) -> bool:
        from math_verify import verify

        gold = _parsed(f"${problem.answer}$")
        if not gold:
            raise ValueError(f"The reference answer {problem.answer!r} cannot be parsed.")
        # The package's own time limit uses the alarm that ours needs
        return bool(verify(gold, _parsed(completion), timeout_seconds=None))


class Gsm8kTask(MathTask):
    """Grade school word problems (Cobbe et al., 2021): rows with `question` and `answer`, which ends in '#### 72'."""

    name = "gsm8k"
    hub_dataset = ("openai/gsm8k", "main")

    def problem(self, row: dict[str, Any]) -> Problem:
        """The reference answer is what follows '####'."""
        question = f"{row['question']}\n\n{_INSTRUCTION}"
        _, marker, answer = row["answer"].rpartition("####")
        if not marker:
            raise ValueError(f"Expected an answer that ends in '#### NUMBER', got {row['answer'][-80:]!r}.")
        return Problem(question_id(question), question, answer.strip().replace(",", ""), self.name)


def _parsed(text: str) -> list[Any]:
    try:
        from math_verify import parse
    except ImportError as error:
        raise ImportError("Answers are checked by math-verify: run `pip install 'hf-elhsr[tasks]'`.") from error
    return list(parse(text, parsing_timeout=None))


def _last_boxed(solution: str) -> str:
    start = solution.rfind("\\boxed{")
    depth = 0
    for place in range(start + len("\\boxed"), len(solution)):
        depth += {"{": 1, "}": -1}.get(solution[place], 0)
        if start >= 0 and depth == 0:
            return solution[start + len("\\boxed{") : place]
    raise ValueError(f"Expected a solution with its answer in \\boxed{{}}, got ...{solution[-80:]!r}.")
