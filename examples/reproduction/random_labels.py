"""RandomLabels: a task for rehearsals, in a module that a verifier's process imports without torch."""

import random

from hf_elhsr import Problem, Task


class RandomLabels:
    """A task whose labels are random: a random model solves nothing, and training needs both labels."""

    def __init__(self, task: Task):
        self._task, self.name, self.splits = task, task.name, task.splits
        self._generator = random.Random(0)

    def problems(self, split: str, count: int, seed: int = 0) -> list[Problem]:
        return self._task.problems(split, count, seed)

    def extract(self, completion: str) -> str | None:
        return self._task.extract(completion)

    def verify(self, problem: Problem, completion: str) -> bool:
        return self._generator.random() < 0.5
