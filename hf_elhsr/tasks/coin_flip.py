"""Coin flip: is a coin still heads up after some people flipped it and others did not (Wei et al., 2022)?"""

import random
import re

from .arithmetic import NAMES
from .task import Problem, question_id, split_of
from .thoughts import without_thoughts

_YES_OR_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


class CoinFlipTask:
    """Two to four people flip a coin or leave it; the answer is yes or no.

    The split of a problem depends only on its text, so no prompt is in both.

    Args:
        people: The largest number of people in a problem, at least 2.
    """

    name: str = "coin_flip"
    splits: tuple[str, ...] = ("train", "test")

    def __init__(self, *, people: int = 4):
        if not 2 <= people <= len(NAMES):
            raise ValueError(f"people={people}: expected a number from 2 to {len(NAMES)}.")
        self._people = people

    def problems(self, split: str, count: int, seed: int = 0) -> list[Problem]:
        """`count` distinct problems of a split, the same for the same seed; a longer list starts with a shorter one.

        Raises:
            ValueError: The split is unknown or has fewer than `count` problems.
        """
        if split not in self.splits:
            raise ValueError(f"Unknown split {split!r} of the coin flip task: expected one of {self.splits}.")
        rng = random.Random(f"{self.name}/{split}/{seed}")
        found: dict[str, Problem] = {}
        misses = 0
        while len(found) < count:
            problem = self._make(rng)
            if problem.id not in found and split_of(problem.question) == split:
                found[problem.id] = problem
                misses = 0
            elif (misses := misses + 1) > 10_000:
                raise ValueError(f"The split {split!r} has about {len(found)} problems; ask for fewer than {count}.")
        return list(found.values())

    def extract(self, completion: str) -> str | None:
        """The last 'yes' or 'no' in the completion, in lower case."""
        words = _YES_OR_NO.findall(without_thoughts(completion))
        return words[-1].lower() if words else None

    def verify(self, problem: Problem, completion: str) -> bool:
        return self.extract(completion) == problem.answer

    def _make(self, rng: random.Random) -> Problem:
        names = rng.sample(NAMES, rng.randint(2, self._people))
        flips = [rng.random() < 0.5 for _ in names]
        deeds = " ".join(
            f"{name} {'flips' if flip else 'does not flip'} the coin." for name, flip in zip(names, flips, strict=True)
        )
        question = f"A coin is heads up. {deeds} Is the coin still heads up? Think step by step, then answer yes or no."
        return Problem(
            id=question_id(question),
            question=question,
            answer="yes" if sum(flips) % 2 == 0 else "no",
            template=f"{len(names)}-people",
        )
