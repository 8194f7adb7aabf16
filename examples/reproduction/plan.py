"""The plan: a configuration file, such as small.json and paper.json in this folder."""

import dataclasses
import json
import re
from typing import Any

from hf_elhsr import SamplingArguments

#: Signals other than hidden states, and the names of heads on them.
SIGNAL_HEADS = {"logits": "head on logits", "top_log_probabilities": "head on top-20 log-probabilities"}


@dataclasses.dataclass(frozen=True)
class TaskPlan:
    """The plan of one task.

    Args:
        name: As `hf-elhsr sample --task` takes it.
        skip_test_prompts: Leave out the first test prompts, which an earlier head was measured on.
        few_prompts: Also compare heads on only this many of the training prompts.
        few_layers: Also compare a head on only these layers, as indices into `hidden_states`; empty for none.
        signals: Other signals to train a head on.
        text_reward_model_epochs: Epochs of the text reward model; 0 for none.
    """

    name: str
    train_prompts: int
    test_prompts: int
    skip_test_prompts: int = 0
    few_prompts: tuple[int, ...] = ()
    few_layers: tuple[int, ...] = ()
    signals: tuple[str, ...] = ()
    text_reward_model_epochs: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.signals) - SIGNAL_HEADS.keys())
        if unknown:
            raise ValueError(f"signals {unknown} of task {self.name!r}: expected some of {sorted(SIGNAL_HEADS)}.")
        invalid = [few for few in self.few_prompts if not 2 <= few < self.train_prompts]
        if invalid:
            raise ValueError(
                f"few_prompts {invalid} of task {self.name!r}: expected numbers from 2 to below its "
                f"{self.train_prompts} train_prompts."
            )

    @property
    def folder(self) -> str:
        """The task's name as the name of a folder."""
        return re.sub(r"\W+", "_", self.name)

    @property
    def trained(self) -> list[str]:
        """The folders of everything that is trained on the task."""
        heads = ["head", *(f"head_{few}_prompts" for few in self.few_prompts)]
        if self.few_layers:
            heads.append(f"head_{len(self.few_layers)}_layers")
        heads += [f"head_{signal}" for signal in self.signals]
        return [*heads, "probe", *(["text_reward_model"] if self.text_reward_model_epochs else [])]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A configuration file.

    Args:
        preset: The preset of heads on hidden states, as `hf-elhsr train --preset` takes it.
        disk_budget: Room for the features of one set of training rollouts.
        tokens_per_second: Tokens that the model samples on this machine, all rows together; only for the estimates.
    """

    model: str
    dtype: str
    preset: str
    train_sampling: SamplingArguments
    test_sampling: SamplingArguments
    tasks: tuple[TaskPlan, ...]
    disk_budget: str
    tokens_per_second: float

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read a configuration file.

        Raises:
            ValueError: A key is unknown or missing, a signal is unknown, or few_prompts are not fewer.
        """
        values = json.loads(text)
        for name in ("train_sampling", "test_sampling"):
            if name in values:
                values[name] = _made(SamplingArguments, values[name])
        values["tasks"] = tuple(_made(TaskPlan, task) for task in values.get("tasks", ()))
        return _made(cls, values)


def _made(kind: Any, values: dict[str, Any]) -> Any:
    fields = dataclasses.fields(kind)
    unknown = sorted(values.keys() - {field.name for field in fields})
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in values]
    if unknown or missing:
        raise ValueError(
            f"{kind.__name__} of the configuration: unknown keys {unknown}, missing keys {missing}. It has "
            f"{', '.join(field.name for field in fields)}."
        )
    return kind(**values)
