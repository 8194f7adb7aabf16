"""The commands that make a head again, from the records of its training."""

import dataclasses
import shlex
from typing import Any

from ..head.configuration_elhsr import ElhsrConfig
from ..training import PRESETS, RewardHeadTrainingArguments

# What `hf-elhsr train` calls its options, where that is not the setting's name
_SWITCHES = {
    ("gate", True): "--gate",
    ("gate", False): "--no-gate",
    ("standardization", "per_feature"): "--standardize",
    ("standardization", None): "--no-standardize",
}
# These are changed by a preset alone
_NO_OPTIONS = ("averaging", "held_out")


def making_commands(name: str, config: ElhsrConfig, training: dict[str, Any]) -> str:
    """`hf-elhsr sample`, `train` and, where they had a part in it, `refit` and `calibrate`, one command a line."""
    rollouts = training["rollouts"]
    refit = training.get("refit")
    first = "first-head" if refit else name
    # The default needs no option
    signal = ["--signal", config.signal] if "signal" in config.to_diff_dict() else []
    commands = [
        ["hf-elhsr", "sample", "rollouts/train", *_sampled(config, rollouts), *signal],
        ["hf-elhsr", "train", "rollouts/train", first, *_trained(config, training["settings"])],
    ]
    if refit:
        pooled = []
        for number, more in enumerate(refit["rollouts"], start=1):
            folder = f"rollouts/more-{number}"
            commands.append(["hf-elhsr", "sample", folder, *_sampled(config, more), "--pooled-by", first])
            pooled += ["--pooled", folder]
        commands.append(["hf-elhsr", "refit", first, name, "--rollouts", "rollouts/train", *pooled])
    if further := training.get("calibrate"):
        commands.append(["hf-elhsr", "evaluate", "rollouts/decisions", *_sampled(config, further), "--head", name])
        commands.append(["hf-elhsr", "calibrate", name, "rollouts/decisions"])
    return "\n".join(" \\\n    ".join(_wrapped(command)) for command in commands)


def _sampled(config: ElhsrConfig, rollouts: dict[str, Any]) -> list[str]:
    sampling = rollouts["sampling"]
    options = {
        "model": config.base_model,
        "task": rollouts["task"],
        "split": rollouts["split"],
        "skip": rollouts.get("skip", 0),
        "prompts": rollouts["prompts"],
        "n": sampling["n"],
        "temperature": sampling["temperature"],
        "top-p": sampling["top_p"],
        "max-new-tokens": sampling["max_new_tokens"],
        "seed": sampling["seed"],
        "dtype": rollouts["dtype"],
    }
    words = [word for option, value in options.items() if value != 0 for word in (f"--{option}", str(value))]
    functions = rollouts.get("labelled_by", {})
    if rollouts["task"].endswith(".jsonl") and ":" not in rollouts["task"]:
        # Sampling in Python does not tell where the function is
        words += ["--verifier", functions.get("verifier", "FILE.py:FUNCTION")]
    return [*words, "--extract", functions["extract"]] if "extract" in functions else words


def _trained(config: ElhsrConfig, settings: dict[str, Any]) -> list[str]:
    """The preset that is nearest, and what was changed."""
    changes = {}
    for name in PRESETS:
        preset = dataclasses.asdict(RewardHeadTrainingArguments.preset(name, config.signal))
        # Settings that came with a later version are not in the record
        changes[name] = {key: value for key, value in settings.items() if key in preset and preset[key] != value}
    nearest = min(changes, key=lambda name: (any(key in changes[name] for key in _NO_OPTIONS), len(changes[name])))
    words = [] if nearest == "default" else ["--preset", nearest]
    for key, value in changes[nearest].items():
        if key == "layers":
            words += [word for layer in value for word in ("--layer", str(layer))]
        elif key == "gate" and value is None:
            # As the rollouts said, which the head does, too
            words.append(_SWITCHES[key, config.gate])
        elif (key, value) in _SWITCHES:
            words.append(_SWITCHES[key, value])
        elif key not in _NO_OPTIONS:
            words += [f"--{key.replace('_', '-')}", str(value)]
    return words


def _wrapped(command: list[str], width: int = 116) -> list[str]:
    """A command's lines, none of which ends between an option and its value."""
    parts: list[str] = []
    for word in command:
        if word.startswith("--") or not parts:
            parts.append(shlex.quote(word))
        else:
            parts[-1] += f" {shlex.quote(word)}"
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) < width:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return lines
