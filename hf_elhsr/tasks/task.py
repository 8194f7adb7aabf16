"""Task and Problem: problems with a prompt, split by prompt, and a verifier that labels completions."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Problem:
    """One problem of a task.

    Args:
        id: Unique within the task and the same in all runs; a prompt and all its rollouts share it.
        question: The user's turn of the chat.
        answer: The reference answer, in the form that the task's verifier expects: text in the tasks of this package,
            or any other value that can be pickled.
        template: The family of problems that this one belongs to.
        row: Its row in the file or dataset that it comes from, counted from 1, for messages; None if there is none.
    """

    id: str
    question: str
    answer: Any
    template: str
    row: int | None = field(default=None, compare=False)


class Task(Protocol):
    """A source of problems and the verifier that labels their completions.

    Any class with these attributes is a task; [`register_task`] makes it known by name. A task whose labels depend on
    files, and so can change while its name does not, describes them in a dictionary `labelled_by`, such as
    `{"rows_sha256": "..."}`. It is recorded with the rollouts, and a run cannot be resumed with a different one.

    Where completions are labelled, [`verify`] calls both methods in a process of their own, which has a pickle of the
    task, with limits of time and memory. They read what the language model answers, without what it wrote in
    `<think>...</think>`: of a thought that has no end, nothing is left. What is stored of a rollout is the whole text.
    """

    name: str
    splits: tuple[str, ...]

    def problems(self, split: str, count: int, seed: int = 0) -> list[Problem]:
        """`count` distinct problems of a split, the same for the same seed; a longer list starts with a shorter one.

        No problem is in two splits, whatever the counts and seeds.
        """
        ...

    def extract(self, completion: str) -> str | None:
        """The final answer of a completion, or None if it has none. Majority vote counts these answers."""
        ...

    def verify(self, problem: Problem, completion: str) -> bool:
        """The label: whether the completion's final answer is correct."""
        ...


def question_id(question: str) -> str:
    """An id for the problem and all its rollouts, from the question's text."""
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def split_of(question: str) -> str:
    """The split of a question by a hash: "test" for about a quarter of all questions, else "train"."""
    return "test" if hashlib.sha256(question.encode()).digest()[-1] % 4 == 0 else "train"
