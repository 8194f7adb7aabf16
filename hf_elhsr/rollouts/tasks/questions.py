"""What follows from a question's text alone, whatever the seed and the machine: its id and its split."""

import hashlib


def question_id(question: str) -> str:
    """By which a problem and all its rollouts are known."""
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def split_of(question: str) -> str:
    """Either "test", for about a quarter of all questions, or "train"; so no question is in both."""
    return "test" if hashlib.sha256(question.encode()).digest()[-1] % 4 == 0 else "train"
