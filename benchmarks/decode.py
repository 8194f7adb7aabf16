"""Is best-of-n faster than plain sampling, whole decoding calls compared? Writes decode.json.

SmolLM2-135M-Instruct in bfloat16 with the shipped head, and a tiny random model with a large vocabulary. Every repeat
runs `BRIEF` peers in turn with the same seed, in an order that rotates, after a full warm-up each; the others, each
of which contains a whole `generate`, run in the first repeat only. The functions of the peers describe them; continuous
batching runs last, since it leaves threads behind.

A whole run takes most of an hour on two cores, which should be otherwise idle. Workloads are stored one by one:
`--workload NAME` (repeatable) measures these again and keeps the others. `--memory` measures peak memory
instead, each peer in a process of its own. `--quick` gives a first impression in one repeat of two peers, and stores
nothing.
"""

import argparse
import copy
import dataclasses
import datetime
import functools
import gc
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

from hf_elhsr import ElhsrConfig, ElhsrRewardHead, RunningReward, enable_best_of_n
from hf_elhsr.models import load_language_model
from hf_elhsr.rollouts import encode_prompts
from hf_elhsr.tasks import ArithmeticTask

HEAD = Path(__file__).parents[1] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
SAMPLING = {"temperature": 0.8, "top_p": 0.9, "top_k": 0}
# Random logits of this spread have a nucleus (top_p 0.9 at temperature 0.8) of about a hundred of 150,000 tokens;
# each workload's entry has the sizes that were measured
LARGE_VOCABULARY, LOGITS_STD = 150_000, 4.0
BRIEF = ("generate", "best_of_n", "best_of_n_pruned")
MEMORY_PEERS = ("generate", "generate_hidden_states", "best_of_n")


@dataclass(frozen=True)
class Workload:
    """The work of every peer: n completions of each prompt.

    Args:
        problems: Number of the task's test problems.
        questions: Questions to ask in place of them.
        worked_example_tokens: Tokens of worked examples from the train split that come before every problem.
        reaches_limit: No completion may end before `max_new_tokens`.
        bar: The largest acceptable ratio of best_of_n's time to generate's; None where none is set.
        counts: Whether it is part of the geometric mean.
        brief: Whether only `BRIEF` peers run.
    """

    name: str
    n: int
    problems: int = 1
    questions: tuple[str, ...] = ()
    worked_example_tokens: int = 0
    max_new_tokens: int = 64
    reaches_limit: bool = False
    large_vocabulary: bool = False
    bar: float | None = None
    counts: bool = False
    brief: bool = False
    continuous_batching: bool = False


ONE_WORD = tuple(
    f"Reply with one word: {question}"
    for question in (
        "what is the capital of France?",
        "is the sun hot or cold?",
        "which animal says meow when it wants to be fed in the morning?",
        "what colour is grass?",
    )
)
_SEVEN = functools.partial(Workload, counts=True, bar=0.70)
WORKLOADS = (
    _SEVEN("one_short_n8", 8, continuous_batching=True),
    _SEVEN("four_ragged_n8", 8, problems=4),
    _SEVEN("sixteen_ragged_n8", 8, problems=16, continuous_batching=True),
    _SEVEN("one_short_n32", 32),
    _SEVEN("long_prompt_n16", 16, worked_example_tokens=1024, reaches_limit=True, bar=0.28),
    _SEVEN("reach_limit_n8", 8, max_new_tokens=256, reaches_limit=True),
    _SEVEN("large_vocabulary_n8", 8, problems=4, large_vocabulary=True, bar=0.40),
    Workload("one_short_n4", 4, bar=0.85),
    Workload("one_short_n16", 16),
    Workload("ends_early_n8", 8, questions=ONE_WORD, max_new_tokens=256),
    Workload("length_64_n8", 8, reaches_limit=True, brief=True),
    Workload("length_128_n8", 8, max_new_tokens=128, reaches_limit=True, brief=True),
    Workload("sixteen_ragged_n32", 32, problems=16, brief=True),
)
SERIES = {
    "n": {4: "one_short_n4", 8: "one_short_n8", 16: "one_short_n16", 32: "one_short_n32"},
    "prompts": {1: "one_short_n8", 4: "four_ragged_n8", 16: "sixteen_ragged_n8"},
    "new_tokens": {64: "length_64_n8", 128: "length_128_n8", 256: "reach_limit_n8"},
}


@dataclass
class PeerResult:
    """One peer's repeats of one workload: wall time, and sampled tokens with the EOS."""

    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def summary(self, ours: "PeerResult | None") -> dict[str, Any]:
        median = statistics.median(self.seconds)
        quartiles = statistics.quantiles(self.seconds, n=4, method="inclusive") if len(self.seconds) > 1 else None
        result = {
            **dataclasses.asdict(self),
            "median": median,
            "min": min(self.seconds),
            "max": max(self.seconds),
            "quartiles": quartiles,
            "tokens_per_second": statistics.median(t / s for t, s in zip(self.tokens, self.seconds, strict=True)),
        }
        if ours is not None:
            # In a repeat all peers ran at about the same time, so these do not see a machine that drifts
            paired = [a / b for a, b in zip(ours.seconds, self.seconds, strict=False)]
            result["best_of_n_ratio"] = statistics.median(ours.seconds) / median
            result["best_of_n_paired_ratios"] = paired
            result["best_of_n_paired_ratio"] = statistics.median(paired)
        return result


@dataclass(frozen=True)
class Case:
    """A workload with the model and inputs it is run on."""

    workload: Workload
    model: Any
    head: ElhsrRewardHead
    inputs: dict[str, torch.Tensor]

    @property
    def limits(self) -> dict[str, Any]:
        new_tokens = self.workload.max_new_tokens
        least = {"min_new_tokens": new_tokens} if self.workload.reaches_limit else {}
        return {"max_new_tokens": new_tokens, **least, **SAMPLING}

    def generate(self, **kwargs: Any) -> Any:
        return self.model.generate(
            **self.inputs, do_sample=True, num_return_sequences=self.workload.n, **self.limits, **kwargs
        )

    def best_of_n(self, **kwargs: Any) -> int:
        out = self.model.generate(
            **self.inputs,
            best_of_n=self.workload.n,
            reward_head=self.head,
            return_dict_in_generate=True,
            **self.limits,
            **kwargs,
        )
        return int(out.lengths.sum())

    def lengths(self, sequences: torch.Tensor) -> torch.Tensor:
        """(rows,) sampled tokens of every row, its EOS included; the rest is padding."""
        completions = sequences[:, self.inputs["input_ids"].shape[1] :]
        ended = (completions == self.model.generation_config.eos_token_id).long().cumsum(-1)
        return (ended.cumsum(-1) <= 1).sum(-1)

    def rows(self, sequences: torch.Tensor) -> Iterator[tuple[torch.Tensor, int]]:
        """Every candidate as (1, tokens) without padding, and how many of its tokens are the completion."""
        padding = (self.inputs["attention_mask"] == 0).sum(-1).repeat_interleave(self.workload.n).tolist()
        width = self.inputs["input_ids"].shape[1]
        for row, start, length in zip(sequences, padding, self.lengths(sequences).tolist(), strict=True):
            yield row[None, start : width + length], length

    @functools.cached_property
    def text_reward_model(self) -> Any:
        return text_reward_model(self.model)


def generate(case: Case, **kwargs: Any) -> int:
    """Sample with transformers' own loop, without scoring."""
    return int(case.lengths(case.generate(**kwargs)).sum())


def generate_hidden_states(case: Case) -> int:
    """Score the hidden states that `generate` keeps, which lack those of the last token."""
    out = case.generate(output_hidden_states=True, return_dict_in_generate=True)
    lengths = case.lengths(out.sequences)
    steps = out.hidden_states[1:]
    if steps:
        states = [torch.cat([step[layer] for step in steps], dim=1) for layer in case.head.config.layers]
        case.head(states, torch.arange(len(steps), device=lengths.device) < lengths[:, None])
    return int(lengths.sum())


def generate_rescore(case: Case) -> int:
    """Do as the published code: one forward pass of the language model per candidate, for its hidden states."""
    sequences = case.generate()
    total = 0
    for row, length in case.rows(sequences):
        mask = torch.zeros_like(row)
        mask[:, -length:] = 1
        case.head.score(case.model, row, mask)
        total += length
    return total


def generate_text_reward_model(case: Case) -> int:
    """Do as usual: run every candidate, with its prompt, through a classifier of the model's size."""
    sequences = case.generate()
    total = 0
    for row, length in case.rows(sequences):
        case.text_reward_model(row, use_cache=False)
        total += length
    return total


def generate_text_reward_model_batched(case: Case) -> int:
    """Do the same with all candidates of a prompt in one padded batch."""
    rows = list(case.rows(case.generate()))
    n = case.workload.n
    for first in range(0, len(rows), n):
        ids = [row[0] for row, _ in rows[first : first + n]]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        case.text_reward_model(padded, attention_mask=mask, use_cache=False)
    return sum(length for _, length in rows)


def generate_batch(case: Case) -> int:
    """Sample with transformers' continuous batching, n copies of each prompt, without scoring."""
    config = copy.deepcopy(case.model.generation_config)
    config.update(do_sample=True, **case.limits)
    pairs = zip(case.inputs["input_ids"], case.inputs["attention_mask"], strict=True)
    prompts = [ids[mask.bool()].tolist() for ids, mask in pairs for _ in range(case.workload.n)]
    attention = case.model.config._attn_implementation
    # By default it takes most of the machine's free memory; this is room for all requests at once
    pages = max(len(prompt) + case.workload.max_new_tokens for prompt in prompts) // 256 + 1
    memory = transformers.ContinuousBatchingConfig(num_blocks=len(prompts) * pages, max_batch_tokens=2048)
    results = case.model.generate_batch(
        prompts, generation_config=config, continuous_batching_config=memory, progress_bar=False
    ).values()
    if len(results) != len(prompts) or any(result.error for result in results):
        raise RuntimeError(f"Continuous batching completed {len(results)} of {len(prompts)} requests.")
    if case.model.config._attn_implementation != attention:
        raise RuntimeError("Continuous batching left another attention implementation behind.")
    return sum(len(result.generated_tokens) for result in results)


def peers_of(case: Case, quick: bool) -> dict[str, Callable[[Case], int]]:
    peers: dict[str, Callable[[Case], int]] = {"generate": generate, "best_of_n": Case.best_of_n}
    if quick:
        return peers
    if getattr(case.head.config, "pruning", None) is not None:
        peers["best_of_n_pruned"] = functools.partial(Case.best_of_n, prune=0.01)
    if not case.workload.brief:
        reward_models = (generate_text_reward_model, generate_text_reward_model_batched)
        others = (generate_hidden_states, generate_rescore, *reward_models)
        peers |= {peer.__name__: peer for peer in others}
    if torch.cuda.is_available():
        # transformers compiles decoding with these
        peers["generate_static"] = functools.partial(generate, cache_implementation="static")
        peers["best_of_n_static"] = functools.partial(Case.best_of_n, cache_implementation="static")
    return peers


@functools.cache
def demo_model() -> tuple[Any, Any, ElhsrRewardHead]:
    return *load_language_model("smollm2-demo", "bfloat16"), ElhsrRewardHead.from_pretrained(HEAD)


@functools.cache
def large_vocabulary_model() -> tuple[Any, ElhsrRewardHead]:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=LARGE_VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    # The last norm leaves hidden states of length sqrt(hidden_size)
    torch.nn.init.normal_(model.lm_head.weight, std=LOGITS_STD / config.hidden_size**0.5)
    model = enable_best_of_n(model.to("cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16))
    head = ElhsrRewardHead(ElhsrConfig.for_model(model))
    torch.nn.init.normal_(head.weight, std=0.01)
    return model, head


def text_reward_model(model: Any) -> Any:
    """A sequence classifier with a copy of the model's backbone."""
    config = copy.deepcopy(model.config)
    config.num_labels = 1
    with torch.device("meta"):
        classifier = transformers.LlamaForSequenceClassification(config).eval()
    classifier.model = copy.deepcopy(model.model)
    classifier.score = torch.nn.Linear(config.hidden_size, 1, bias=False, device=model.device, dtype=model.dtype)
    return classifier


def make_case(workload: Workload) -> Case:
    if workload.large_vocabulary:
        model, head = large_vocabulary_model()
        lengths = range(12, 12 + 6 * workload.problems, 6)
        ids = [torch.randint(3, LARGE_VOCABULARY, (length,)).flip(0) for length in lengths]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_side="left")
        inputs = {"input_ids": padded, "attention_mask": (padded != 0).long()}
    else:
        model, tokenizer, head = demo_model()
        inputs = dict(encode_prompts(tokenizer, questions(workload, tokenizer)))
    return Case(workload, model, head, {name: tensor.to(model.device) for name, tensor in inputs.items()})


def questions(workload: Workload, tokenizer: Any) -> list[str]:
    if workload.questions:
        return list(workload.questions)
    asked = [problem.question for problem in ArithmeticTask().problems("test", workload.problems)]
    if workload.worked_example_tokens:
        worked = ""
        for problem in ArithmeticTask().problems("train", 100):
            worked += f"Question: {problem.question}\nAnswer: The answer is {problem.answer}.\n\n"
            if len(tokenizer(worked)["input_ids"]) >= workload.worked_example_tokens:
                break
        asked = [f"{worked}Question: {question}\nAnswer:" for question in asked]
    return asked


def synchronize() -> float:
    """Return the time once the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def run(peer: Callable[[Case], int], case: Case, seed: int, result: PeerResult) -> None:
    gc.collect()
    torch.manual_seed(seed)
    start = synchronize()
    tokens = peer(case)
    result.seconds.append(synchronize() - start)
    result.tokens.append(tokens)


def compare(case: Case, repeats: int, quick: bool) -> dict[str, Any]:
    peers = peers_of(case, quick)
    order = list(peers)
    results = {name: PeerResult() for name in order}
    for repeat in tqdm(range(-1, repeats), desc=case.workload.name, leave=False):
        for name in order[repeat % len(order) :] + order[: repeat % len(order)]:
            if name in BRIEF or repeat == 0:
                # The warm-up's times are dropped
                run(peers[name], case, seed=1000 + repeat, result=results[name] if repeat >= 0 else PeerResult())
    return {name: result.summary(results["best_of_n"]) for name, result in results.items()}


def follow_one_run(case: Case) -> dict[str, Any]:
    """Measure times inside one call of best-of-n, from the end of the first scoring call to that of the last."""
    spent: dict[str, list[float]] = {"scoring": [], "reading": []}
    ends: list[float] = []

    def timed(name: str, function: Callable[..., Any], is_step: bool = False) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            before = sum(spent[name])
            start = synchronize()
            result = function(*args)
            end = synchronize()
            # Less what a timed function inside has counted already
            spent[name].append(end - start - (sum(spent[name]) - before))
            if is_step:
                ends.append(end)
            return result

        return call

    with ExitStack() as stack:
        for method, is_step in (("__call__", True), ("_score_waiting", False)):
            function = timed("scoring", getattr(RunningReward, method), is_step)
            stack.enter_context(mock.patch.object(RunningReward, method, function))
        for name, module in list(sys.modules.items()):
            if name.startswith("hf_elhsr.generation.") and hasattr(module, "read_step"):
                stack.enter_context(mock.patch.object(module, "read_step", timed("reading", module.read_step)))
        torch.manual_seed(1000)
        case.best_of_n()
    loop = ends[-1] - ends[0]
    return {
        "steps": len(ends),
        "step_seconds_median": statistics.median(b - a for a, b in itertools.pairwise(ends)),
        "scoring_share": sum(spent["scoring"]) / loop,
        # Taking the last position out of the model's output; None where no function does that
        "reading_share": sum(spent["reading"][1:]) / loop if spent["reading"] else None,
    }


def nucleus_sizes(case: Case) -> dict[str, float]:
    """Count the tokens that top_p keeps, over 16 steps of 4 completions of up to 4 prompts."""
    inputs = {name: tensor[:4] for name, tensor in case.inputs.items()}
    settings = {"do_sample": True, "num_return_sequences": 4, "max_new_tokens": 16, **SAMPLING}
    torch.manual_seed(0)
    out = case.model.generate(**inputs, **settings, output_logits=True, return_dict_in_generate=True)
    # Rows that have ended are fed padding
    running = torch.arange(len(out.logits), device=case.model.device)[:, None] < case.lengths(out.sequences)
    probabilities = (torch.stack(out.logits)[running].float() / SAMPLING["temperature"]).softmax(-1)
    above = probabilities.sort(descending=True).values.cumsum(-1)
    sizes = ((above < SAMPLING["top_p"]).sum(-1) + 1).double()
    return {name: float(sizes.quantile(q)) for name, q in (("p5", 0.05), ("median", 0.5), ("p95", 0.95))}


def weight_bytes(model: Any) -> int:
    """Count the bytes of weights that a decoding step reads, without an embedding that is not also the output."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    unread = embedding.nbytes if embedding is not head else 0
    return sum(parameter.nbytes for parameter in model.parameters()) - unread


def bandwidth(size: int, device: torch.device) -> float:
    """Measure the bytes per second at which all threads together read a tensor of this size, the best of twenty."""
    tensor = torch.ones(size // 4, device=device)
    tensor.sum()
    seconds = []
    for _ in range(20):
        start = synchronize()
        tensor.sum()
        seconds.append(synchronize() - start)
    return size / min(seconds)


def bandwidth_limit(case: Case, step_seconds: float) -> dict[str, float]:
    """Compare a step's time with that of reading the weights, from memory or from a cache that holds as much."""
    size = weight_bytes(case.model)
    far, near = (bandwidth(bytes_, case.model.device) for bytes_ in (2**31, size))
    return {
        "weight_bytes": size,
        "memory_bytes_per_second": far,
        "weight_sized_bytes_per_second": near,
        "limit_seconds": size / far,
        "step_to_limit": step_seconds * far / size,
        "step_to_weight_sized_limit": step_seconds * near / size,
    }


def peak_memory(case: Case, peer: str) -> int:
    """Measure the bytes that one call needs at its peak beyond those held once the model has run; Linux only."""
    case.model(**{name: tensor[:1, -8:] for name, tensor in case.inputs.items()})
    torch.manual_seed(1000)
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        peers_of(case, quick=False)[peer](case)
        return torch.cuda.max_memory_allocated() - before
    # The peak so far was in loading: make it what is held now
    Path("/proc/self/clear_refs").write_text("5")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peers_of(case, quick=False)[peer](case)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def memory_in_children(workload: Workload) -> dict[str, int]:
    def measure(peer: str) -> int:
        command = [sys.executable, __file__, "--memory-of", workload.name, peer]
        return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])

    return {peer: measure(peer) for peer in tqdm(MEMORY_PEERS, desc=f"{workload.name}, memory", leave=False)}


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "dtype": "bfloat16",
    }


def geometric_mean(values: list[float | None]) -> float | None:
    return statistics.geometric_mean(values) if values and None not in values else None


def summarize(workloads: dict[str, Any]) -> dict[str, Any]:
    """Compare every measured number with its bar; None for what has not been measured."""

    def ratio(name: str, peer: str = "generate") -> float | None:
        return workloads.get(name, {}).get("peers", {}).get(peer, {}).get("best_of_n_ratio")

    seven = [workload.name for workload in WORKLOADS if workload.counts]
    shares = [entry["inside"]["scoring_share"] for entry in workloads.values() if entry.get("inside")]
    bars = [("geometric mean of the seven, to generate", geometric_mean([ratio(name) for name in seven]), 0.35)]
    bars += [(f"{w.name}, to generate", ratio(w.name), w.bar) for w in WORKLOADS if w.bar is not None]
    text = geometric_mean([ratio(name, "generate_text_reward_model") for name in seven])
    bars += [("geometric mean of the seven, to generate_text_reward_model", text, 0.28)]
    bars += [("scoring's share of the loop, median", statistics.median(shares) if shares else None, 0.01)]

    def seconds(name: str, peer: str) -> float | None:
        return workloads.get(name, {}).get("peers", {}).get(peer, {}).get("median")

    return {
        "bars": [
            {"what": what, "measured": value, "bar": bar, "met": None if value is None else value <= bar}
            for what, value, bar in bars
        ],
        "growth_seconds": {
            along: {peer: {str(x): seconds(name, peer) for x, name in names.items()} for peer in BRIEF}
            for along, names in SERIES.items()
        },
    }


def show(result: dict[str, Any]) -> None:
    columns = ("workload", "peer", "seconds", "min", "max", "tokens", "tokens/s", "best_of_n to it")
    table = Table(*columns, title="Medians")
    for name, entry in result["workloads"].items():
        for peer, r in entry.get("peers", {}).items():
            numbers = (f"{r[key]:.2f}" for key in ("median", "min", "max"))
            counts = (f"{statistics.median(r['tokens']):.0f}", f"{r['tokens_per_second']:.0f}")
            table.add_row(name, peer, *numbers, *counts, f"{r['best_of_n_ratio']:.2f}")
    bars = Table("what", "measured", "bar", "met", title="Bars")
    for bar in result["summary"]["bars"]:
        value = "" if bar["measured"] is None else f"{bar['measured']:.3f}"
        bars.add_row(bar["what"], value, f"{bar['bar']}", {None: "", True: "yes", False: "NO"}[bar["met"]])
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table, bars)


class Results:
    """The JSON file, written whole after every workload."""

    def __init__(self, file: Path | None, partial_run: bool):
        self._file = file
        self.result: dict[str, Any] = {
            "question": "seconds of whole decoding calls",
            "machine": machine(),
            "sampling": SAMPLING,
            "workloads": {},
        }
        if file is not None and file.is_file():
            stored = json.loads(file.read_text())
            if stored["machine"] == self.result["machine"]:
                self.result["workloads"] = stored["workloads"]
            elif partial_run:
                raise SystemExit(f"{file} was measured elsewhere: measure all workloads, or give another --output.")

    def update(self, workload: Workload, **measured: Any) -> None:
        entries = self.result["workloads"]
        entries[workload.name] = entries.get(workload.name, {}) | measured
        entries |= {w.name: entries.pop(w.name) for w in WORKLOADS if w.name in entries}
        self.result["summary"] = summarize(entries)
        if self._file is not None:
            partial = self._file.with_name(self._file.name + ".partial")
            partial.write_text(json.dumps(self.result, indent=2) + "\n")
            os.replace(partial, self._file)


def measure(workload: Workload, repeats: int, quick: bool) -> dict[str, Any]:
    case = make_case(workload)
    measured = {
        "settings": dataclasses.asdict(workload),
        "prompt_tokens": case.inputs["attention_mask"].sum(-1).tolist(),
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "nucleus_size": nucleus_sizes(case),
        "peers": compare(case, repeats, quick),
        "inside": follow_one_run(case),
    }
    measured["bandwidth"] = bandwidth_limit(case, measured["inside"]["step_seconds_median"])
    return measured


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("--workload", action="append", choices=names, help="only this one; repeatable")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repeat of generate and best_of_n, nothing stored")
    parser.add_argument("--brief", action="store_true", help="only the peers that run in every repeat")
    parser.add_argument("--memory", action="store_true", help="peak memory of the seven workloads, nothing else")
    parser.add_argument("--output", type=Path, help="default: decode.json in this folder")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    transformers.logging.set_verbosity_error()
    args = arguments()
    by_name = {workload.name: workload for workload in WORKLOADS}
    if args.memory_of:
        print(peak_memory(make_case(by_name[args.memory_of[0]]), args.memory_of[1]))
        return
    output = None if args.quick else args.output or Path(__file__).with_suffix(".json")
    results = Results(output, partial_run=bool(args.workload) or args.memory)
    chosen = [by_name[name] for name in args.workload or by_name]
    for workload in tqdm(chosen, desc="Workloads"):
        if not args.memory:
            if args.brief:
                workload = dataclasses.replace(workload, brief=True, continuous_batching=False)
            results.update(workload, **measure(workload, 1 if args.quick else args.repeats, args.quick))
        elif workload.counts:
            results.update(workload, peak_memory_bytes=memory_in_children(workload))
    for workload in chosen:
        if workload.continuous_batching and not (args.quick or args.brief or args.memory):
            peers = results.result["workloads"][workload.name]["peers"]
            batched = PeerResult()
            run(generate_batch, make_case(workload), seed=1000, result=batched)
            ours = PeerResult(peers["best_of_n"]["seconds"], peers["best_of_n"]["tokens"])
            results.update(workload, peers=peers | {"generate_batch": batched.summary(ours)})
    show(results.result)


if __name__ == "__main__":
    main()
