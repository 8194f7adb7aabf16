"""The prompt of a command: its argument, or standard input."""

import sys


def read_prompt(argument: str) -> str:
    """The prompt: the argument, or all of standard input for "-".

    The newline that ends standard input, as `echo` writes it, is not part of the prompt.

    Raises:
        ValueError: It is not valid text.
    """
    try:
        text = argument if argument != "-" else sys.stdin.read()
        # Bytes that are not UTF-8 reach Python as surrogates in arguments, and in the C locale also in standard input
        text.encode()
    except UnicodeError as error:
        place = "the argument" if argument != "-" else "standard input"
        raise ValueError(f"The prompt in {place} is not UTF-8: convert it, e.g. with iconv.") from error
    if argument != "-":
        return text
    return text.removesuffix("\n")
