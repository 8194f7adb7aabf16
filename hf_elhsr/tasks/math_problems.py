"""GSM8K and MATH: answers in mathematical notation, compared by the library math-verify."""

import importlib.util
import os
import re
from functools import lru_cache
from typing import Any

from .rows import RowsTask, text_of
from .task import Problem, question_id
from .thoughts import without_thoughts

_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
_BOX = re.compile(r"\\boxed|\\fbox")


class MathTask(RowsTask):
    """Competition problems (Hendrycks et al., 2021): rows with `problem`, `solution`, optionally `level` and `type`."""

    name = "math"
    hub_dataset = ("DigitalLearningGmbH/MATH-lighteval", "default")

    def __init__(self, source: str | os.PathLike[str] | None = None):
        # Checked now, not after hours of sampling
        if importlib.util.find_spec("math_verify") is None:
            raise ValueError(
                "This task needs math-verify, which compares answers: run `pip install 'hf-elhsr[tasks]'`."
            )
        super().__init__(source)

    def problem(self, row: dict[str, Any]) -> Problem:
        """The problem of a row; its reference answer is in the solution's last \\boxed{} or \\fbox{}."""
        question = f"{text_of(row, 'problem')}\n\n{_INSTRUCTION}"
        family = "/".join(str(row[name]) for name in ("type", "level") if row.get(name))
        return Problem(question_id(question), question, _last_boxed(text_of(row, "solution")), family or self.name)

    def extract(self, completion: str) -> str | None:
        """The final answer, in sympy's notation where it can be parsed, so that equal numbers count as one vote."""
        parsed = _parsed(without_thoughts(completion))
        return str(_exact(parsed[0])) if parsed else None

    def verify(self, problem: Problem, completion: str) -> bool:
        from math_verify import verify

        gold = _parsed(f"${problem.answer}$")
        if not gold:
            raise ValueError(f"The reference answer {problem.answer!r} cannot be parsed.")
        # `verify` has a time limit of its own, and math-verify's errors would count as incorrect
        return bool(verify(gold, _parsed(without_thoughts(completion)), timeout_seconds=None, raise_on_error=True))


class Gsm8kTask(MathTask):
    """Grade school word problems (Cobbe et al., 2021): rows with `question` and `answer`, which ends in '#### 72'."""

    name = "gsm8k"
    hub_dataset = ("openai/gsm8k", "main")

    def problem(self, row: dict[str, Any]) -> Problem:
        """The problem of a row; its reference answer follows '####'."""
        question = f"{text_of(row, 'question')}\n\n{_INSTRUCTION}"
        solution = text_of(row, "answer")
        _, marker, answer = solution.rpartition("####")
        if not marker:
            raise ValueError(f"Expected an answer that ends in '#### NUMBER', got {solution[-80:]!r}.")
        return Problem(question_id(question), question, answer.strip().replace(",", ""), self.name)


def _exact(answer: Any) -> Any:
    """Write a number as a fraction: 18.00 as 18, and 50*(1/100) as 1/2. Other answers stay as they are."""
    from sympy import Add, Mul, Number, NumberSymbol, Pow, UnevaluatedExpr, nsimplify, preorder_traversal

    for part in preorder_traversal(answer):
        # A tower of powers or a factorial might take hours
        small = not isinstance(part, Pow) or (part.exp.is_Rational and abs(part.exp) <= 64)
        if not isinstance(part, Add | Mul | Pow | Number | NumberSymbol | UnevaluatedExpr) or not small:
            return answer
    return nsimplify(answer.doit(), rational=True)


@lru_cache(maxsize=64)
def _parsed(text: str) -> list[Any]:
    from math_verify import parse

    return list(parse(text, parsing_timeout=None, raise_on_error=True))


def _last_boxed(solution: str) -> str:
    found = list(_BOX.finditer(solution))
    if not found:
        raise ValueError(f"Expected a solution with its answer in \\boxed{{}}, got ...{solution[-80:]!r}.")
    rest = solution[found[-1].end() :].lstrip()
    if not rest.startswith("{"):
        # As in '\boxed 5'
        return re.split(r"[\s$.]", rest, maxsplit=1)[0]
    depth = 0
    for place, character in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return rest[1:place]
    raise ValueError(f"Expected a solution whose last \\boxed{{}} is closed, got ...{solution[-80:]!r}.")
