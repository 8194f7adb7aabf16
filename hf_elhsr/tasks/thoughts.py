"""without_thoughts: what a completion answers, apart from what the language model thought before."""

import re

# Mistral's models write brackets
_MARK = re.compile(r"(?:<(?P<close>/?)think(?:ing)?>|\[(?P<close_bracket>/?)THINK\])\s*")
_OPEN_AT_THE_END = re.compile(r"(?:<think(?:ing)?>|\[THINK\])\s*\Z")


def without_thoughts(completion: str, in_thought: bool = False) -> str:
    """The completion without what stands in <think>...</think>; nothing of it is left where a thought has no end.

    A closing mark that no other opened ends a thought that the prompt began, so what stands before it is left out, too.

    Args:
        completion: The text.
        in_thought: Whether the prompt ends in an opening mark, see [`begins_thought`].
    """
    kept: list[str] = []
    start = 0
    for mark in _MARK.finditer(completion):
        closing = bool(mark["close"] or mark["close_bracket"])
        if closing and not in_thought:
            kept.clear()
        elif not closing and not in_thought:
            kept.append(completion[start : mark.start()])
        in_thought, start = not closing, mark.end()
    return "".join(kept if in_thought else [*kept, completion[start:]])


def begins_thought(prompt: str) -> bool:
    """Whether a completion of the prompt begins inside a thought, as some chat templates have it."""
    return _OPEN_AT_THE_END.search(prompt) is not None
