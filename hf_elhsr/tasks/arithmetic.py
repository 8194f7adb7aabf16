"""Arithmetic word problems that a small model can sometimes solve, generated from seeded templates.

The split of a problem depends only on its text (a hash), so training and test prompts are disjoint for any counts and
seeds. Eight templates appear in no training prompt: they form the split `unseen_templates`, which shows whether a head
reads correctness or only the wording it was trained on.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from .task import Problem, question_id, split_of
from .thoughts import without_thoughts

NAMES = (
    "Anna", "Ben", "Carla", "David", "Elena", "Frank", "Grace", "Henry", "Ida", "Jack", "Kira", "Leo",
    "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Viktor",
)  # fmt: skip
THINGS = (
    "apples", "books", "coins", "pencils", "stickers", "marbles", "cards", "shells", "stamps", "cookies",
    "oranges", "balloons", "buttons", "stones", "flowers", "tickets",
)  # fmt: skip


@dataclass(frozen=True)
class Template:
    """Text with the fields {name}, {other}, {things}, {a}, {b}, {c}, and the answer as a function of a, b, c."""

    name: str
    text: str
    answer: Callable[[int, int, int], int]
    a: tuple[int, int]
    b: tuple[int, int]
    c: tuple[int, int] = (0, 0)


def _add(a: int, b: int, c: int) -> int:
    return a + b


def _remove(a: int, b: int, c: int) -> int:
    # Templates that remove print a + b through the field {total}, so that a is left
    return a


def _times(a: int, b: int, c: int) -> int:
    return a * b


def _share(a: int, b: int, c: int) -> int:
    # {product} things shared among {b}
    return a


def _add_add(a: int, b: int, c: int) -> int:
    return a + b + c


def _times_add(a: int, b: int, c: int) -> int:
    return a * b + c


# fmt: off
SEEN_TEMPLATES = (
    Template("buys-more", "{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?", _add, (2, 20), (2, 12)),
    Template("is-given", "{name} had {a} {things}. {other} gave {name} {b} {things}. How many {things} does {name} have in total?", _add, (2, 20), (2, 12)),
    Template("two-days", "{name} found {a} {things} on Monday and {b} {things} on Tuesday. How many {things} did {name} find altogether?", _add, (2, 20), (2, 12)),
    Template("both-friends", "{name} has {a} {things}. {other} has {b} {things}. How many {things} do they have together?", _add, (2, 20), (2, 12)),
    Template("red-blue", "A jar holds {a} red {things} and {b} blue {things}. How many {things} are in the jar?", _add, (2, 20), (2, 12)),
    Template("more-than", "{other} has {a} {things}. {name} has {b} more {things} than {other}. How many {things} does {name} have?", _add, (2, 20), (2, 12)),
    Template("plants", "There were {a} trees in the park. Workers planted {b} more trees. How many trees are in the park now?", _add, (2, 20), (2, 12)),
    Template("gives-away", "{name} had {total} {things} and gave {b} of them to {other}. How many {things} does {name} have left?", _remove, (2, 20), (2, 10)),
    Template("loses", "{name} had {total} {things} but lost {b} of them. How many {things} are left?", _remove, (2, 20), (2, 10)),
    Template("birds", "There are {total} birds in a tree and {b} fly away. How many birds are left?", _remove, (2, 20), (2, 10)),
    Template("sells", "A shop had {total} {things}. It sold {b} {things} today. How many {things} does the shop still have?", _remove, (2, 20), (2, 10)),
    Template("fewer-than", "{other} has {total} {things}. {name} has {b} fewer {things} than {other}. How many {things} does {name} have?", _remove, (2, 20), (2, 10)),
    Template("bus", "{total} people were on a bus. At the next stop {b} people got off. How many people are on the bus now?", _remove, (2, 20), (2, 10)),
    Template("boxes", "One box holds {a} {things}. How many {things} are in {b} boxes?", _times, (2, 10), (2, 6)),
    Template("each-day", "{name} reads {a} pages every day. How many pages does {name} read in {b} days?", _times, (2, 12), (2, 6)),
    Template("price", "One ticket costs {a} dollars. How many dollars do {b} tickets cost?", _times, (2, 12), (2, 6)),
    Template("rows", "A garden has {b} rows with {a} flowers in each row. How many flowers are in the garden?", _times, (2, 10), (2, 6)),
    Template("shares", "{name} shares {product} {things} equally among {b} friends. How many {things} does each friend get?", _share, (2, 10), (2, 5)),
    Template("bags", "{product} {things} are packed into {b} bags with the same number in each. How many {things} are in one bag?", _share, (2, 10), (2, 5)),
    Template("three-people", "{name} has {a} {things}, {other} has {b} {things} and their teacher has {c} {things}. How many {things} are there altogether?", _add_add, (2, 9), (2, 9), (2, 9)),
    Template("boxes-and-loose", "{name} has {b} boxes with {a} {things} in each box and {c} loose {things}. How many {things} does {name} have?", _times_add, (2, 6), (2, 4), (1, 5)),
    Template("week", "{name} ate {a} {things} on Monday, {b} on Tuesday and {c} on Wednesday. How many {things} did {name} eat in the three days?", _add_add, (2, 9), (2, 9), (2, 9)),
)
UNSEEN_TEMPLATES = (
    Template("chickens", "A farmer keeps {a} chickens. She brings home {b} more chickens from the market. How many chickens does she keep now?", _add, (2, 20), (2, 12)),
    Template("shelf", "{a} {things} are on the upper shelf and {b} {things} are on the lower shelf. What is the total number of {things}?", _add, (2, 20), (2, 12)),
    Template("age", "{other} is {a} years old. {name} is {b} years older than {other}. How old is {name}?", _add, (2, 20), (2, 12)),
    Template("melts", "A class made {total} snowmen and {b} of them melted. How many snowmen remain?", _remove, (2, 20), (2, 10)),
    Template("left-to-read", "A book has {total} pages. {name} has read {b} pages. How many pages are left to read?", _remove, (2, 20), (2, 10)),
    Template("legs", "Each robot has {a} wheels. How many wheels do {b} robots have?", _times, (2, 10), (2, 6)),
    Template("teams", "{product} children form {b} teams of equal size. How many children are in each team?", _share, (2, 10), (2, 5)),
    Template("pockets", "{name} has {a} {things} in one pocket, {b} in the other and {c} in a bag. How many {things} is that in all?", _add_add, (2, 9), (2, 9), (2, 9)),
)
# fmt: on

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


class ArithmeticTask:
    """Word problems of one or two steps with a whole number as the answer; see the module's docstring."""

    name: str = "arithmetic"
    splits: tuple[str, ...] = ("train", "test", "unseen_templates")

    def problems(self, split: str, count: int, seed: int = 0) -> list[Problem]:
        """`count` distinct problems of a split, the same for the same seed; a longer list starts with a shorter one.

        Raises:
            ValueError: The split is unknown or has fewer than `count` problems.
        """
        if split not in self.splits:
            raise ValueError(f"Unknown split {split!r} of the arithmetic task: expected one of {self.splits}.")
        templates = UNSEEN_TEMPLATES if split == "unseen_templates" else SEEN_TEMPLATES
        rng = random.Random(f"{self.name}/{split}/{seed}")
        found: dict[str, Problem] = {}
        misses = 0
        while len(found) < count:
            problem = _make(rng.choice(templates), rng)
            is_new = problem.id not in found
            if is_new and (split == "unseen_templates" or split_of(problem.question) == split):
                found[problem.id] = problem
                misses = 0
            elif (misses := misses + 1) > 10_000:
                raise ValueError(f"The split {split!r} has about {len(found)} problems; ask for fewer than {count}.")
        return list(found.values())

    def extract(self, completion: str) -> str | None:
        """The last number in the completion, in a canonical form: '12' for '12.0', and '1000' for '1,000'."""
        numbers = _NUMBER.findall(without_thoughts(completion))
        if not numbers:
            return None
        try:
            value = Decimal(numbers[-1].replace(",", ""))
        except InvalidOperation:
            return None
        return format(value.normalize(), "f")

    def verify(self, problem: Problem, completion: str) -> bool:
        return self.extract(completion) == problem.answer


def _make(template: Template, rng: random.Random) -> Problem:
    name, other = rng.sample(NAMES, 2)
    a, b, c = (rng.randint(*bounds) for bounds in (template.a, template.b, template.c))
    question = template.text.format(
        name=name, other=other, things=rng.choice(THINGS), a=a, b=b, c=c, total=a + b, product=a * b
    )
    return Problem(
        id=question_id(question),
        question=question,
        answer=str(template.answer(a, b, c)),
        template=template.name,
    )
