"""The commands that reproduce a head, from the record of its training."""

import dataclasses
import json
import shlex
from typing import Any

from ..head.configuration_elhsr import ElhsrConfig
from ..tasks.row_files import is_row_file
from ..training import PRESETS, RewardHeadTrainingArguments
from .record import TrainingRecord

# The switches of `hf-elhsr train`, by the setting and its value; other options have the setting's name
_SWITCHES = {
    ("gate", True): "--gate",
    ("gate", False): "--no-gate",
    ("standardization", "per_feature"): "--standardize",
    ("standardization", None): "--no-standardize",
}
# Only presets change these
_NO_OPTIONS = ("averaging", "held_out")


def making_commands(name: str, config: ElhsrConfig, record: TrainingRecord) -> str:
    """`hf-elhsr sample`, `train` and, where they were run, `refit` and `calibrate`, one command a line."""
    refit = record.refit
    first = "first-head" if refit else name
    commands = [
        ["hf-elhsr", "sample", "rollouts/train", *_sampled(config, record.rollouts), "--signal", config.signal],
        ["hf-elhsr", "train", "rollouts/train", first, *_trained(config, record.settings)],
    ]
    if refit:
        pooled = []
        for number, more in enumerate(refit["rollouts"], start=1):
            folder = f"rollouts/more-{number}"
            commands.append(["hf-elhsr", "sample", folder, *_sampled(config, more), "--pooled-by", first])
            pooled += ["--pooled", folder]
        commands.append(["hf-elhsr", "refit", first, name, "--rollouts", "rollouts/train", *pooled])
    if further := record.calibrate:
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
    if rollouts.get("skipped_overlong"):
        words.append("--skip-overlong")
    if "system_prompt" in rollouts:
        words += ["--system-prompt", rollouts["system_prompt"]]
    for option, value in rollouts.get("template_options", {}).items():
        words += ["--template-option", f"{option}={json.dumps(value)}"]
    functions = rollouts.get("labelled_by", {})
    if is_row_file(rollouts["task"]) and ":" not in rollouts["task"]:
        # After sampling in Python the function's file is unknown
        words += ["--verifier", functions.get("verifier", "FILE.py:FUNCTION")]
    return [*words, "--extract", functions["extract"]] if "extract" in functions else words


def _trained(config: ElhsrConfig, settings: dict[str, Any]) -> list[str]:
    """The options for the preset that is nearest, and for the settings that differ from it."""
    changes = {}
    for name in PRESETS:
        preset = dataclasses.asdict(RewardHeadTrainingArguments.preset(name, config.signal))
        # A record of an earlier version lacks the settings that came later
        changes[name] = {key: value for key, value in settings.items() if key in preset and preset[key] != value}
    nearest = min(changes, key=lambda name: (any(key in changes[name] for key in _NO_OPTIONS), len(changes[name])))
    words = [] if nearest == "default" else ["--preset", nearest]
    for key, value in changes[nearest].items():
        if key == "layers":
            words += [word for layer in value for word in ("--layer", str(layer))]
        elif key == "gate" and value is None:
            # It was taken from the rollouts, as the head's config says
            words.append(_SWITCHES[key, config.gate])
        elif (key, value) in _SWITCHES:
            words.append(_SWITCHES[key, value])
        elif key not in _NO_OPTIONS:
            words += [f"--{key.replace('_', '-')}", str(value)]
    return words


def _wrapped(command: list[str], width: int = 116) -> list[str]:
    """A command's lines, broken only before options."""
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
