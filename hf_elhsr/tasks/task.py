"""What a task is: problems with a prompt, split by prompt, and a verifier that says which completions are right."""

import hashlib
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Problem:
    """One problem of a task.

    Args:
        id: Unique within the task, stable over runs; a prompt and all its rollouts share it.
        question: What the user's turn of the chat says.
        answer: The reference answer, as the task's verifier wants it.
        template: The family the problem was made from; evaluation can report families apart.
    """

    id: str
    question: str
    answer: str
    template: str


class Task(Protocol):
    """A source of problems and the verifier that labels completions of them.

    A task whose labels can change while its name does not, since they depend on files, tells of what in a dictionary
    `labelled_by`. It is recorded with the rollouts, and a run that goes on with another one is refused.
    """

    name: str
    splits: tuple[str, ...]

    def problems(self, split: str, count: int, seed: int = 0) -> list[Problem]:
        """`count` distinct problems of a split. No problem is in two splits, whatever the counts and seeds."""
        ...

    def extract(self, completion: str) -> str | None:
        """The final answer that a completion gives, or None where it gives none. Voting counts these."""
        ...

    def verify(self, problem: Problem, completion: str) -> bool:
        """The label: whether the completion's final answer is the right one."""
        ...


def question_id(question: str) -> str:
    """By which a problem and all its rollouts are known."""
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def split_of(question: str) -> str:
    """Either "test", for about a quarter of all questions, or "train"; so no question is in both."""
    return "test" if hashlib.sha256(question.encode()).digest()[-1] % 4 == 0 else "train"
