"""token_texts: the text that every single token adds, as far as a tokenizer can tell."""

from typing import Any

# A character of UTF-8 has at most four bytes, and a token at least one: who waits longer waits for nothing
_LONGEST_WAIT = 4


def token_texts(tokenizer: Any, token_ids: list[int]) -> list[str]:
    """What each token adds to the text, special tokens included; joined, they are the decoded text.

    A token that holds a part of a character adds nothing, and the one that completes the character adds it.

    Args:
        tokenizer: The language model's.
        token_ids: Of one completion.
    """

    def decode(start: int, end: int) -> str:
        ids = token_ids[start:end]
        text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    texts: list[str] = []
    # What a token adds can depend on the one before: `before` starts that one, `told` ends what has been told of
    before = told = 0
    for end in range(1, len(token_ids) + 1):
        known, text = decode(before, told), decode(before, end)
        incomplete = text.endswith("\N{REPLACEMENT CHARACTER}") and end - told < _LONGEST_WAIT
        if incomplete and end < len(token_ids):
            texts.append("")
            continue
        texts.append(text[len(known) :])
        before, told = told, end
    return texts
