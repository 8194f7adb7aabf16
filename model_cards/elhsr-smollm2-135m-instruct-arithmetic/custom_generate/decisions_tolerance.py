# Made by hf_elhsr 0.1.0 from its hf_elhsr/decisions/tolerance.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""Tables from a regret, the accuracy that may be given up, to the setting that was fitted to it."""

#: The regrets that heads are fitted for, as shares of prompts.
TOLERANCES = (0.005, 0.01, 0.015, 0.02, 0.05)


def setting_for(table: dict[str, float], regret: float, what: str) -> float:
    """The entry of the largest stored regret that is not above the one asked for.

    Args:
        table: Regret, as text, to setting.
        what: The argument's name, for the message.

    Raises:
        ValueError: Every stored regret is above the one asked for, or that is no regret at all.
    """
    stored = sorted(table, key=float)
    allowed = [key for key in stored if not isinstance(regret, bool) and float(key) <= regret < 1]
    if not allowed:
        raise ValueError(
            f"{what}={regret!r}: expected how much accuracy may be given up, as a share of prompts of at least "
            f"{stored[0]} and below 1. This head has settings for {', '.join(stored)}."
        )
    return table[allowed[-1]]
