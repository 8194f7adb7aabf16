"""Rollout: one completion with its label, stored as one line of a shard's .jsonl."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from .._visible_text import visible


@dataclass(frozen=True)
class Rollout:
    """One completion of a task's problem, with its label.

    Args:
        problem: Id of the problem; rollouts of a prompt share it.
        template: The problem's family.
        token_ids: The sampled tokens, the EOS included.
        text: The completion, special tokens left out.
        answer: The final answer the task's verifier found, or None.
        label: Whether that answer is correct; None if the verifier failed.
        mean_log_probability: Per token, under the raw distribution, in nats.
        first_row: Index of its first token in the shard's features and token arrays; it has `num_rows` rows.
        reward: R from the head that followed the sampling, if one did.
        verifier_failure: Why the verifier failed, if it did. The whole prompt is then left out of training and
            evaluation, with a warning.
        self_certainty: Mean KL divergence of the uniform distribution from the raw ones, in nats; None if it was not
            recorded.
        feature_tokens: Which tokens have features, counted from 0, if a disk budget left some out; None for all.
        judged: By name, R from the further judges that followed the sampling, if any did.
    """

    problem: str
    template: str
    token_ids: list[int]
    text: str
    answer: str | None
    label: bool | None
    mean_log_probability: float
    first_row: int
    reward: float | None = None
    verifier_failure: str | None = None
    feature_tokens: list[int] | None = None
    self_certainty: float | None = None
    judged: dict[str, float] | None = None

    @property
    def num_rows(self) -> int:
        """How many of its tokens have features or token arrays."""
        return len(self.token_ids if self.feature_tokens is None else self.feature_tokens)

    @property
    def correct(self) -> bool:
        """The label.

        Raises:
            ValueError: The verifier failed, so there is no label.
        """
        if self.label is None:
            raise ValueError(
                f"This rollout of prompt {self.problem!r} has no label: {visible(str(self.verifier_failure))}"
            )
        return self.label


def by_prompt(shard: list[Rollout]) -> Iterator[list[Rollout]]:
    """The rollouts of each prompt of a shard; prompts on which the verifier failed are left out.

    Raises:
        ValueError: The rollouts of a prompt are not adjacent.
    """
    seen: set[str] = set()
    for problem, group in groupby(shard, key=lambda rollout: rollout.problem):
        members = list(group)
        if problem in seen:
            raise ValueError(
                f"Expected the rollouts of prompt {problem!r} to be adjacent: the set is damaged, sample it again."
            )
        seen.add(problem)
        if all(rollout.label is not None for rollout in members):
            yield members
