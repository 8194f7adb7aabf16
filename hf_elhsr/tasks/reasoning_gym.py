"""ReasoningGymTask: any dataset of the library reasoning-gym, with its own verifier."""

import json
import re
from typing import Any

from .task import Problem, question_id, split_of
from .thoughts import without_thoughts

_INSTRUCTION = "End with 'Answer: ' followed by the answer alone."
# 'Answer:', 'answer is', 'the answer to this problem is'
_MARK = re.compile(r"\banswer(?:\s+[\w']+){0,6}?\s*(?::|\bis\b\s*:?)", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")
# '15' in '6 + 9 = 15, not 7'
_RESULT = re.compile(rf"(?:-?\(*\d[-+*/\u00d7\u00f7().,\d\s]*=\s*)*({_NUMBER.pattern})")
_DECORATION = " *`'\""
# A dataset of reasoning-gym has a fixed size, but makes an entry only when asked for it
_SIZE = 1_000_000
# How many answers are read to see whether a dataset's answers are numbers
_LOOKED_AT = 32


class ReasoningGymTask:
    """Problems are made from seeds; the split of a problem depends only on its question.

    Args:
        dataset: The dataset's name in reasoning-gym, e.g. "spell_backward".
        **settings: Settings of that dataset, e.g. its difficulty.

    Raises:
        ValueError: reasoning-gym is not installed, or has no such dataset or setting.
    """

    splits: tuple[str, ...] = ("train", "test")

    def __init__(self, dataset: str, **settings: Any):
        try:
            import reasoning_gym
        except ImportError as error:
            raise ValueError("This task needs reasoning-gym: run `pip install 'hf-elhsr[tasks]'`.") from error
        # `find_task` makes the same task from this name
        described = ",".join(f"{name}={json.dumps(value)}" for name, value in sorted(settings.items()))
        self.name = f"reasoning_gym:{dataset}" + (f":{described}" if settings else "")
        try:
            self._entries = reasoning_gym.create_dataset(dataset, size=_SIZE, seed=0, **settings)
        except (ValueError, TypeError, AssertionError) as error:
            raise ValueError(f"reasoning-gym cannot make the dataset {dataset!r} with {settings}: {error}") from error

        answers = [str(self._entries[place]["answer"]) for place in range(_LOOKED_AT)]
        self._numeric = all(_NUMBER.fullmatch(answer) for answer in answers)

    def problems(self, split: str, count: int, seed: int = 0) -> list[Problem]:
        """`count` distinct problems of a split, the same for the same seed; a longer list starts with a shorter one.

        Raises:
            ValueError: The split is unknown, or the dataset has too few distinct problems.
        """
        if split not in self.splits:
            raise ValueError(f"Unknown split {split!r} of the task {self.name!r}: expected one of {self.splits}.")
        found: dict[str, Problem] = {}
        misses = 0
        place = seed * 100_003 % _SIZE
        while len(found) < count:
            question = self._entries[place]["question"]
            own_id = question_id(question)
            fresh = split_of(question) == split and own_id not in found
            if fresh:
                # The place leads back to the entry, which the verifier needs as a whole
                found[own_id] = Problem(own_id, f"{question}\n\n{_INSTRUCTION}", str(place), self.name)
            misses = 0 if fresh else misses + 1
            if misses > 2_000:
                raise ValueError(f"{self.name!r} has about {len(found)} problems; ask for fewer than {count}.")
            place = (place + 1) % _SIZE
        return list(found.values())

    def extract(self, completion: str) -> str | None:
        """The text after the last 'Answer:', to the end of its line; without one, all of a completion of one line.

        If the dataset's answers are numbers, it is the first number there, or the result of the equation that starts
        with it; without any, the last number of the completion.
        """
        completion = without_thoughts(completion)
        *_, last = [None, *_MARK.finditer(completion)]
        line = "" if last is None else completion[last.end() :].strip().partition("\n")[0]
        if self._numeric:
            found = _RESULT.findall(line)[:1] or _NUMBER.findall(completion)[-1:]
            return found[0].replace(",", "") if found else None
        if last is None and "\n" not in completion.strip():
            line = completion
        return line.strip(_DECORATION).rstrip(".").strip(_DECORATION) or None

    def verify(self, problem: Problem, completion: str) -> bool:
        answer = self.extract(completion)
        score = self._entries.score_answer(answer, self._entries[int(problem.answer)]) if answer is not None else 0.0
        # Partial credit is not a correct answer
        return float(score) >= 1.0


def reasoning_gym_task(text: str) -> ReasoningGymTask:
    """The task for 'DATASET', or for 'DATASET:SETTING=VALUE,...' with values in JSON or as plain text.

    Raises:
        ValueError: reasoning-gym is not installed, or has no such dataset or setting.
    """
    dataset, _, settings = text.partition(":")
    return ReasoningGymTask(dataset, **_settings(settings))


def _settings(text: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    # Values may contain commas
    for part in re.split(r",(?=\s*\w+=)", text) if text else []:
        name, equals, value = part.strip().partition("=")
        if not (equals and name.isidentifier()) or name in ("dataset", "self"):
            raise ValueError(f"Expected settings of a dataset as name=value, separated by commas, got {part!r}.")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings
