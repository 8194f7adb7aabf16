"""Recording: what is kept of the tokens of a sampling run, and the signal processors that keep it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..head.configuration_elhsr import ElhsrConfig
from ..head.modeling_elhsr import ElhsrRewardHead
from ..rewards import RunningLogProbability, RunningReward, RunningSelfCertainty, SignalProcessor
from ..rewards.baselines import RunningLastTokenProbe
from .disk_budget import RecordingPlan, most_bytes, plan_recording, recorded_tokens
from .engine import Judge, SamplingArguments, SamplingEngine
from .recorders import PREFIX_INTERVAL, FeatureRecorder, PooledRecorder, PrefixRecorder
from .shard_arrays import TOKEN_ARRAYS


@dataclass(frozen=True)
class Recording:
    """What is recorded of the sampled tokens: features to train a head on, or a head's rewards.

    The mean log-probability and the self-certainty of every rollout are always recorded.

    Args:
        head: Reward the rollouts with this head, for evaluation: r_t, g_t and log p_t of every token are recorded, but
            no features of tokens. Default: features are recorded.
        config: Without a head: the configuration of the head to be trained, which defines the features. Default:
            the engine's own, all hidden states for a transformers model.
        pooled: With a head: also record every rollout's features, pooled over its tokens with the head's gates, and the
            means of some of its prefixes, for [`refit_head`].
        disk_budget: Without a head: bytes that the features may take. If those of all tokens and layers might not fit,
            some are left out, see [`plan_recording`]. Default: all are recorded.
        judges: By name, further heads and probes that follow the same sampling; their rewards are recorded in
            [`Rollout.judged`], to be compared on the same rollouts.

    Raises:
        ValueError: There is `pooled` without a head that has gates, judges without a head, or a disk budget with a
            head.
    """

    head: ElhsrRewardHead | None = None
    config: ElhsrConfig | None = None
    pooled: bool = False
    disk_budget: int | None = None
    judges: Mapping[str, Judge] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.pooled and self.head is None:
            raise ValueError("pooled=True needs a head, whose gates weight the tokens: pass one.")
        if self.pooled and self.head is not None and not self.head.config.gate:
            raise ValueError("pooled=True needs a head with a gate: `refit` keeps the gates and solves for the rest.")
        if self.disk_budget is not None and self.head is not None:
            raise ValueError("disk_budget is for features of tokens, which a head does not record: leave it out.")
        if self.judges and self.head is None:
            raise ValueError(f"The judges {sorted(self.judges)} need a head to be compared with: pass `head` as well.")

    def check_fits(self, engine: SamplingEngine) -> None:
        """Refuse heads and probes that were trained for a different language model.

        Raises:
            ValueError: One does not fit.
        """
        for judge in (*self.judges.values(), *([] if self.head is None else [self.head])):
            engine.check_fits(judge)

    def plan(self, engine: SamplingEngine, rollouts: int, max_new_tokens: int) -> RecordingPlan:
        """Plan which features of which tokens are recorded, so that this many rollouts fit the disk budget.

        Raises:
            ValueError: The budget is too small for anything.
        """
        config = self.config if self.head is None else self.head.config
        config = engine.head_config() if config is None else config
        return plan_recording(config, engine.recorded_dtype(config), rollouts, max_new_tokens, self.disk_budget)

    def describe(self, engine: SamplingEngine, plan: RecordingPlan) -> dict[str, Any]:
        """The entries of a rollout set's settings that describe what was recorded; absent ones have their defaults."""
        described: dict[str, Any] = {}
        if self.head is not None:
            described["head_sha256"] = self.head.digest()
            # A head may fit several models, such as light fine-tunes of one
            described["model_sha256"] = engine.digest()
        if self.judges:
            described["judges"] = {
                name: judge.digest() if isinstance(judge, ElhsrRewardHead) else judge.sha256
                for name, judge in self.judges.items()
            }
        if self.pooled:
            described |= {"pooled": True, "prefixes": True}
        if plan.every > 1:
            described["feature_every"] = plan.every
        return described

    def most_bytes(self, plan: RecordingPlan, prompts: int, arguments: SamplingArguments) -> int:
        """The bytes that the features of this many prompts take if every completion has the maximal length."""
        completions = prompts * arguments.n
        if self.head is None:
            return most_bytes(plan.config, plan.dtype, completions * -(-arguments.max_new_tokens // plan.every))
        if not self.pooled:
            return 0
        # Half of the prefixes, of which there is one in PREFIX_INTERVAL tokens, and the whole completion
        vectors = 1 + arguments.max_new_tokens // (2 * PREFIX_INTERVAL)
        return completions * vectors * plan.config.num_features * torch.float32.itemsize


class Followers:
    """The signal processors of a sampling run, and what they recorded of the latest batch.

    Args:
        recording: What is recorded.
        plan: Which features are recorded.
    """

    def __init__(self, recording: Recording, plan: RecordingPlan):
        head = recording.head
        self._every = plan.every
        self._log_probability = RunningLogProbability(keep_tokens=head is not None)
        self._self_certainty = RunningSelfCertainty()
        self._judges = {
            name: RunningReward(judge) if isinstance(judge, ElhsrRewardHead) else RunningLastTokenProbe(judge)
            for name, judge in recording.judges.items()
        }
        self._reward = None if head is None else RunningReward(head, keep_tokens=True)
        self._recorder = FeatureRecorder(plan.config, plan.every, plan.dtype) if head is None else None
        self._pooled = PooledRecorder(head) if head is not None and recording.pooled else None
        self._prefixes = PrefixRecorder(head) if head is not None and recording.pooled else None
        baselines = (self._log_probability, self._self_certainty)
        present = (*baselines, *self._judges.values(), self._reward, self._recorder, self._pooled, self._prefixes)
        self.processors: list[SignalProcessor] = [processor for processor in present if processor is not None]

    def numbers(self) -> list[dict[str, Any]]:
        """By the names of [`Rollout`]'s fields, the numbers of each rollout of the batch."""
        means, certainties = self._log_probability.mean.tolist(), self._self_certainty.mean.tolist()
        rewards = [None] * len(means) if self._reward is None else self._reward.rewards.tolist()
        judged = {name: judge.rewards.tolist() for name, judge in self._judges.items()}
        return [
            {
                "mean_log_probability": means[number],
                "self_certainty": certainties[number],
                "reward": rewards[number],
                "judged": {name: own[number] for name, own in judged.items()} or None,
            }
            for number in range(len(means))
        ]

    def feature_tokens(self, length: int) -> list[int] | None:
        """Which tokens of a completion of this length have features, counted from 0; None for all."""
        return None if self._every == 1 else recorded_tokens(length, self._every)

    def arrays(self, lengths: list[int]) -> dict[str, Any]:
        """What was recorded of the batch's tokens, as arguments of [`RolloutSet.write_shard`].

        Args:
            lengths: The number of sampled tokens of every completion.
        """
        return {
            "features": None if self._recorder is None else self._recorder.features(),
            "token_arrays": self._token_arrays(lengths),
            "pooled_features": None if self._pooled is None else self._pooled.features().cpu(),
            "prefix_means": None if self._prefixes is None else self._prefixes.means(),
        }

    def _token_arrays(self, lengths: list[int]) -> dict[str, torch.Tensor]:
        """By the names of TOKEN_ARRAYS, (tokens,) each, one completion after the other. Empty without a head."""
        if self._reward is None:
            return {}
        steps = [self._reward.token_rewards, self._reward.token_gates, self._log_probability.token_log_probabilities]
        if self._reward.head.config.value:
            steps.append(self._reward.token_values)
        sampled = torch.arange(steps[0].shape[1]) < torch.tensor(lengths)[:, None]
        # Not strict: the values come last, if there are any
        return {name: step.cpu()[sampled] for name, step in zip(TOKEN_ARRAYS, steps, strict=False)}
