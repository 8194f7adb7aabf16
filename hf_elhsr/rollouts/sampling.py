"""Sampling rollouts: completions, labels and features from one pass of the language model."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import tqdm

from ..generation.loop import Candidates
from ..head.base_model import model_digest
from ..head.configuration_elhsr import ElhsrConfig
from ..head.modeling_elhsr import ElhsrRewardHead
from ..rewards import RunningLogProbability, RunningReward, RunningSelfCertainty, SignalProcessor
from ..rewards.baselines import LastTokenProbe, RunningLastTokenProbe
from ..tasks import Problem, Task
from .disk_budget import most_bytes, plan_recording, recorded_tokens, warn_of_little_room
from .labelling import refuse_unverified, verdict
from .prompts import encode_prompts
from .recorders import PREFIX_INTERVAL, FeatureRecorder, PooledRecorder, PrefixRecorder
from .rollout import Rollout
from .rollout_set import RolloutSet
from .shard_arrays import TOKEN_ARRAYS

#: What else can follow a sampling that a head follows.
Judge = ElhsrRewardHead | LastTokenProbe


@dataclass(frozen=True)
class SamplingArguments:
    """How completions are sampled; the names and meanings are generate's.

    Args:
        n: Completions per prompt.
        prompts_per_batch: Prompts decoded together, and stored as one shard. Part of what a seed reproduces.
        seed: Of the random numbers; every batch gets its own, so that a resumed run goes on as if never stopped.
    """

    n: int = 8
    temperature: float = 0.8
    top_p: float = 0.9
    top_k: int = 0
    max_new_tokens: int = 64
    prompts_per_batch: int = 16
    seed: int = 0

    def generate_kwargs(self) -> dict[str, Any]:
        """The part that `generate` takes."""
        names = ("temperature", "top_p", "top_k", "max_new_tokens")
        return {name: getattr(self, name) for name in names}

    def seed_of_batch(self, batch: int) -> int:
        """Of the random numbers of one batch."""
        return self.seed * 1_000_003 + batch


def sample_rollouts(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    split: str,
    count: int,
    folder: str | os.PathLike[str],
    settings: SamplingArguments,
    head: ElhsrRewardHead | None = None,
    config: ElhsrConfig | None = None,
    skip: int = 0,
    pooled: bool = False,
    disk_budget: int | None = None,
    judges: Mapping[str, Judge] | None = None,
) -> RolloutSet:
    """Sample rollouts for `count` prompts of a task and store them with labels, and with features or rewards.

    A run that was stopped goes on where it was, with the same result as if it had not been. One whose verifier fails on
    all of its first batch ends there, with nothing of it written.

    Args:
        model: A language model with [`enable_best_of_n`].
        split: The task's split, e.g. "train".
        head: Score the rollouts with this head, for evaluation: r_t, g_t and log p_t of every token are recorded, and
            features but those asked for by `pooled`.
        config: Without a head: the configuration of the head to be trained, whose features are recorded. Default:
            [`ElhsrConfig.for_model`].
        skip: Leave out the first prompts of the split, e.g. those that an earlier head was measured on.
        pooled: Also record every rollout's features, pooled over its tokens with the head's gates, and the means of
            some of its prefixes, for [`refit_head`].
        disk_budget: Bytes that the features may take. Where those of all tokens and layers might not fit, some are left
            out, as [`plan_recording`] says. Default: record all.
        judges: By name, other heads and probes that follow the same sampling beside `head`; what they say is recorded
            in [`Rollout.judged`], to be compared on the same rollouts.

    Raises:
        ValueError: `pooled` or judges without a head, a disk budget with one or one too small for anything, `skip` is
            negative, the folder holds rollouts with other settings, the task has too few prompts or one of them twice,
            a head does not fit the model, or the verifier failed on every rollout of the first batch.
    """
    if skip < 0:
        raise ValueError(f"skip={skip} is no number of prompts to leave out: give 0 or more.")
    if pooled and head is None:
        raise ValueError("pooled=True needs a head, whose gates weigh the tokens.")
    if pooled and head is not None and not head.config.gate:
        raise ValueError("pooled=True needs a head with a gate: `refit` keeps the gates and solves for the rest.")
    if disk_budget is not None and head is not None:
        raise ValueError("disk_budget is for features of tokens, and with a head none are recorded: leave it out.")
    judges = dict(judges or {})
    if judges and head is None:
        raise ValueError(f"The judges {sorted(judges)} need a head to be compared with: give `head` too.")
    for judge in judges.values():
        judge.config.check_fits(model) if isinstance(judge, ElhsrRewardHead) else judge.check_fits(model)
    if head is not None:
        head.config.check_fits(model)
        config = head.config
    elif config is None:
        config = ElhsrConfig.for_model(model)
    problems = task.problems(split, skip + count)[skip:]
    prompts = [encode_prompts(tokenizer, [problem.question])["input_ids"] for problem in problems]
    _refuse_doubles(problems, prompts)
    described = {
        "task": task.name,
        "split": split,
        "prompts": count,
        "sampling": dataclasses.asdict(settings),
        # What else decides what is sampled, so that a resumed run does not mix two things
        "dtype": str(model.dtype).removeprefix("torch."),
        "generation_config": model.generation_config.to_diff_dict(),
        "prompts_sha256": hashlib.sha256(str([ids.tolist() for ids in prompts]).encode()).hexdigest(),
    }
    if labelled_by := getattr(task, "labelled_by", None):
        described["labelled_by"] = labelled_by
    if skip:
        # Absent at zero, so that sets made before there was a choice are gone on with
        described["skip"] = skip
    if head is not None:
        described["head_sha256"] = head.digest()
        # A head may fit several models, such as light fine-tunes of one
        described["model_sha256"] = model_digest(model)
    if judges:
        described["judges"] = {
            name: judge.digest() if isinstance(judge, ElhsrRewardHead) else judge.sha256
            for name, judge in judges.items()
        }
    if pooled:
        described |= {"pooled": True, "prefixes": True}
    every, dtype = 1, config.reads.recorded_dtype(model)
    if disk_budget is not None:
        plan = plan_recording(config, dtype, count * settings.n, settings.max_new_tokens, disk_budget)
        config, every = plan.config, plan.every
    if every > 1:
        described["feature_every"] = every
    rollouts = RolloutSet.create(folder, described, config)
    missing = sum(not rollouts.has_shard(index) for index in range(-(-count // settings.prompts_per_batch)))
    if head is None and missing:
        tokens = missing * settings.prompts_per_batch * settings.n * -(-settings.max_new_tokens // every)
        warn_of_little_room(rollouts.folder, most_bytes(config, dtype, tokens))
    if pooled and missing:
        # Of half of all prefixes, one in PREFIX_INTERVAL tokens, and of the whole
        vectors = settings.n * (1 + settings.max_new_tokens // (2 * PREFIX_INTERVAL))
        needed = missing * settings.prompts_per_batch * vectors * config.num_features * 4
        warn_of_little_room(rollouts.folder, needed)
    recorder = FeatureRecorder(config, every, dtype) if head is None else None
    followers = _Followers(head, recorder, pooled, judges)
    batches = [problems[i : i + settings.prompts_per_batch] for i in range(0, count, settings.prompts_per_batch)]
    any_verified = False
    for index, batch in enumerate(tqdm(batches, desc=f"Sampling {task.name} ({split})", unit="batch")):
        if rollouts.has_shard(index):
            continue
        inputs = encode_prompts(tokenizer, [problem.question for problem in batch]).to(model.device)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed_of_batch(index))
            candidates = model.sample_candidates(
                **inputs, n=settings.n, signal_processor=followers.processors, **settings.generate_kwargs()
            )
        shard = _label(tokenizer, task, batch, candidates, followers)
        if not any_verified:
            # Before hours are spent on rollouts without a label
            refuse_unverified(shard)
            any_verified = True
        arrays = followers.token_arrays(candidates.lengths)
        rollouts.write_shard(
            index, shard, followers.features(), arrays, followers.pooled_features(), followers.prefix_means()
        )
    return rollouts


def _refuse_doubles(problems: list[Problem], prompts: list[torch.Tensor]) -> None:
    """What is learned from a prompt must not be measured on it: neither ids nor prompts may repeat."""
    first: dict[object, Problem] = {}
    for problem, ids in zip(problems, prompts, strict=True):
        for key in (problem.id, tuple(ids.flatten().tolist())):
            if key in first:
                raise ValueError(
                    f"The task gives problem {problem.id!r} twice, first as {first[key].id!r}, or both have the same "
                    "prompt. Training could hold out what it learns from: leave all but one of them out."
                )
            first[key] = problem


class _Followers:
    """The signal processors of a sampling run: the baselines, and the rewards, the features or both pooled."""

    def __init__(
        self, head: ElhsrRewardHead | None, recorder: FeatureRecorder | None, pooled: bool, judges: dict[str, Judge]
    ):
        self.log_probability = RunningLogProbability(keep_tokens=head is not None)
        self.self_certainty = RunningSelfCertainty()
        self.reward = None if head is None else RunningReward(head, keep_tokens=True)
        self.has_values = head is not None and head.config.value
        self.recorder = recorder
        self.pooled = PooledRecorder(head) if head is not None and pooled else None
        self.prefixes = PrefixRecorder(head) if head is not None and pooled else None
        self.judges = {
            name: RunningReward(judge) if isinstance(judge, ElhsrRewardHead) else RunningLastTokenProbe(judge)
            for name, judge in judges.items()
        }
        baselines = (self.log_probability, self.self_certainty)
        present = (*baselines, *self.judges.values(), self.reward, self.recorder, self.pooled, self.prefixes)
        self.processors: list[SignalProcessor] = [processor for processor in present if processor is not None]

    def features(self) -> torch.Tensor | None:
        return None if self.recorder is None else self.recorder.features()

    def feature_tokens(self, length: int) -> list[int] | None:
        every = 1 if self.recorder is None else self.recorder.every
        return None if every == 1 else recorded_tokens(length, every)

    def pooled_features(self) -> torch.Tensor | None:
        return None if self.pooled is None else self.pooled.features().cpu()

    def prefix_means(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        return None if self.prefixes is None else self.prefixes.means()

    def token_arrays(self, lengths: torch.Tensor) -> dict[str, torch.Tensor]:
        """By the names of TOKEN_ARRAYS, (tokens,) each: candidate after candidate. Empty without a head.

        Args:
            lengths: (batch, n) sampled tokens of every candidate.
        """
        if self.reward is None:
            return {}
        steps = [self.reward.token_rewards, self.reward.token_gates, self.log_probability.token_log_probabilities]
        if self.has_values:
            steps.append(self.reward.token_values)
        sampled = torch.arange(steps[0].shape[1], device=lengths.device) < lengths.flatten()[:, None]
        # Not strict: the values come last, where there are any
        return {name: step[sampled.to(step.device)].cpu() for name, step in zip(TOKEN_ARRAYS, steps, strict=False)}

    def rewards(self, count: int) -> list[float] | list[None]:
        return [None] * count if self.reward is None else self.reward.rewards.tolist()

    def judged(self, count: int) -> list[dict[str, float]] | list[None]:
        if not self.judges:
            return [None] * count
        said = {name: judge.rewards.tolist() for name, judge in self.judges.items()}
        return [{name: rewards[number] for name, rewards in said.items()} for number in range(count)]


def _label(
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    problems: list[Problem],
    candidates: Candidates,
    followers: _Followers,
) -> list[Rollout]:
    n = candidates.lengths.shape[1]
    means, certainties = followers.log_probability.mean.tolist(), followers.self_certainty.mean.tolist()
    rewards, judged = followers.rewards(len(means)), followers.judged(len(means))
    rollouts = []
    first_row = 0
    for number, (mean, reward) in enumerate(zip(means, rewards, strict=True)):
        problem = problems[number // n]
        token_ids = candidates.completion(number // n, number % n).tolist()
        text = tokenizer.decode(token_ids, skip_special_tokens=True)
        label, answer, failure = verdict(task, problem, text)
        rollouts.append(
            Rollout(
                problem=problem.id,
                template=problem.template,
                token_ids=token_ids,
                text=text,
                answer=answer,
                label=label,
                mean_log_probability=mean,
                first_row=first_row,
                reward=reward,
                verifier_failure=failure,
                feature_tokens=followers.feature_tokens(len(token_ids)),
                self_certainty=certainties[number],
                judged=judged[number],
            )
        )
        first_row += rollouts[-1].num_rows
    return rollouts
