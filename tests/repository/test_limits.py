"""The numbers and the judgements of docs/limits.md are those of the evaluations, the report and the benchmarks.

Where one of these was measured again, a failing test says which rows the page should have.
"""

import json
import re
from pathlib import Path

import pytest
import torch

from hf_elhsr import ElhsrConfig
from hf_elhsr.evaluation import Evaluation, TradeOff
from hf_elhsr.evaluation.tradeoff import ADAPTIVE, PRUNED
from hf_elhsr.rollouts.disk_budget import parse_bytes, plan_recording
from hf_elhsr.tasks import find_task

ROOT = Path(__file__).parents[2]
LIMITS = (ROOT / "docs" / "limits.md").read_text()
SHIPPED = ROOT / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
SUMS = "reasoning_gym:chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=2"
# As the page calls them
TASKS = {
    "arithmetic": "word problems",
    "coin_flip": "coin flips",
    "reasoning_gym:aiw": "Alice problems",
    SUMS: "bare sums",
}


def reported():
    tasks = json.loads((ROOT / "docs" / "reproduction" / "report.json").read_text())["tasks"]
    return {name: Evaluation.from_json(json.dumps(task["evaluation"])) for name, task in tasks.items()}


def shipped(split):
    return Evaluation.from_json((SHIPPED / "evaluation" / f"{split}.json").read_text())


def benchmark(name):
    return json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())


def row(*cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def against_no_training():
    judges = ("majority vote", "mean log-probability")
    for name, evaluation in reported().items():
        shown = [evaluation.accuracy[judge] for judge in ("single sample", *judges, "reward head")]
        yield row(TASKS[name], *shown, *(evaluation.head_minus[judge] for judge in judges))


def trained_elsewhere():
    evaluations = reported()
    for trained in TASKS:
        cells = [
            evaluation.accuracy["reward head" if name == trained else f"head of {trained}"]
            for name, evaluation in evaluations.items()
        ]
        yield row(TASKS[trained], *cells)
    yield row("none: single sample", *(evaluation.accuracy["single sample"] for evaluation in evaluations.values()))


def training_size():
    arithmetic = reported()["arithmetic"]
    for prompts in (100, 200):
        judge = f"head on {prompts} prompts"
        yield row(prompts, arithmetic.accuracy[judge], arithmetic.judges_minus[judge]["majority vote"])
    yield row(400, arithmetic.accuracy["reward head"], arithmetic.head_minus["majority vote"])


def other_signals():
    arithmetic = reported()["arithmetic"]
    ahead = arithmetic.head_minus["mean log-probability"]
    yield row("hidden states of all 31 layers", arithmetic.accuracy["reward head"], ahead)
    for signal, judge in (
        ("hidden states of layers 12, 14, ... 24", "head on 7 layers"),
        ("logits", "head on logits"),
        ("top-20 log-probabilities", "head on top-20 log-probabilities"),
    ):
        yield row(signal, arithmetic.accuracy[judge], arithmetic.judges_minus[judge]["mean log-probability"])


def beside_text():
    arithmetic = reported()["arithmetic"]
    yield row("reward head", arithmetic.accuracy["reward head"], "")
    for judge in ("text reward model", "head and text, learned"):
        yield row(judge, arithmetic.accuracy[judge], arithmetic.head_minus[judge])


def other_wordings():
    for split, name in (("test", "as in training"), ("unseen_templates", "never seen")):
        evaluation = shipped(split)
        accuracy = (evaluation.accuracy[judge] for judge in ("single sample", "majority vote", "reward head"))
        error = f"{evaluation.expected_calibration_error:.3f}"
        yield row(name, f"{evaluation.prompts:,}", *accuracy, evaluation.gap_closed, error)


def more_candidates():
    curves = shipped("test").by_k
    for k in (1, 2, 4, 8):
        yield row(k, *(curves[judge][k - 1] for judge in ("majority vote", "reward head", "oracle")))


def fewer_tokens():
    tradeoff = TradeOff.from_json((SHIPPED / "tradeoff" / "test.json").read_text())
    arguments = {PRUNED: "prune", ADAPTIVE: "adaptive"}
    for name, points in tradeoff.by_tolerance.items():
        for point in points:
            if point.setting in (0.01, 0.02, 0.05):
                yield row(f"`{arguments[name]}={point.setting:g}`", f"{100 * point.tokens:.1f}", point.difference)


@pytest.mark.parametrize(
    "rows",
    [
        against_no_training,
        trained_elsewhere,
        training_size,
        other_signals,
        beside_text,
        other_wordings,
        more_candidates,
        fewer_tokens,
    ],
)
def test_the_tables_are_the_evaluations(rows):
    expected = "\n".join(rows())
    assert expected in LIMITS.replace("*", ""), f"The page should have these rows:\n{expected}"


def test_no_other_intervals_are_claimed():
    tables = [against_no_training, trained_elsewhere, training_size, other_signals, beside_text, other_wordings]
    tables += [more_candidates, fewer_tokens]
    known = "\n".join(line for rows in tables for line in rows())
    claimed = re.findall(r"-?\d+\.\d \[-?\d+\.\d, -?\d+\.\d\]", LIMITS)
    assert claimed
    assert [interval for interval in claimed if interval not in known] == []


def test_no_machine_is_told_of():
    """Where things lay when they were measured is of no use to anybody else."""
    texts = [file for pattern in ("docs/**/*", "benchmarks/*.json", "model_cards/**/*") for file in ROOT.glob(pattern)]
    told = [file for file in texts if file.suffix in (".json", ".md", ".svg")]
    assert len(told) > 20
    assert [file.name for file in told if re.search(r'["\s`(]/(?:home|root|tmp|work|Users)/', file.read_text())] == []


def test_how_much_was_measured():
    text = " ".join(LIMITS.split())
    evaluations = reported()
    [others] = {evaluation.prompts for name, evaluation in evaluations.items() if name != "arithmetic"}
    words = evaluations["arithmetic"].prompts
    assert f"measured on {words:,} unseen prompts of word problems, and {others} of each other task" in text
    assert f"{shipped('test').prompts:,} unseen prompts" in text
    assert {evaluation.n for evaluation in [*evaluations.values(), shipped("test")]} == {8}


def test_what_is_said_of_the_tables_holds():
    """Surely ahead, surely behind, or neither: what the sentences beside the tables say."""
    evaluations = reported()
    arithmetic, flips, alice, sums = (evaluations[name] for name in TASKS)
    for measured in (arithmetic, alice):
        assert min(measured.head_minus[judge].low for judge in ("majority vote", "mean log-probability")) > 0
    # "No better"
    for measured in (flips.head_minus["majority vote"], sums.head_minus["mean log-probability"]):
        assert measured.low < 0 < measured.high
    assert sums.head_minus["majority vote"].low > 0
    assert flips.head_minus["mean log-probability"].low > 0
    # "As guessing would be", between yes and no
    right = flips.base_rate / flips.answered
    assert f"{100 * flips.answered:.1f} % of the rollouts give an answer, and {100 * right:.1f} % of these" in " ".join(
        LIMITS.split()
    )
    assert abs(right - 0.5) < 2 * (0.25 / (flips.prompts * flips.n * flips.answered)) ** 0.5
    few = arithmetic.judges_minus["head on 100 prompts"]["majority vote"]
    assert few.low > 0
    # "By less than half as much"
    assert 0.4 < few.value / arithmetic.head_minus["majority vote"].value < 0.5
    # "Do as well"
    layers = arithmetic.head_minus["head on 7 layers"]
    assert layers.low < 0 < layers.high
    # "All are surely ahead"
    signals = ("head on logits", "head on top-20 log-probabilities", "head on 7 layers")
    assert min(arithmetic.judges_minus[judge]["mean log-probability"].low for judge in signals) > 0
    # "Worse than a single sample", and what holds one way round only
    worse = ((flips, "head of arithmetic"), (sums, "head of coin_flip"), (arithmetic, "head of reasoning_gym:aiw"))
    for elsewhere, judge in worse:
        assert elsewhere.accuracy[judge].high < elsewhere.accuracy["single sample"].low
    assert sums.head_minus["head of arithmetic"].low < 0
    assert arithmetic.head_minus[f"head of {SUMS}"].low > 0
    # "A little ahead"
    assert 0 < arithmetic.head_minus["text reward model"].low < arithmetic.head_minus["text reward model"].value < 3
    learned = arithmetic.head_minus["head and text, learned"]
    assert learned.low < 0 < learned.high
    seen, unseen = shipped("test"), shipped("unseen_templates")
    assert unseen.expected_calibration_error > seen.expected_calibration_error
    assert unseen.head_minus["majority vote"].low > 0
    gaps = [best.value - own.value for best, own in zip(seen.by_k["oracle"], seen.by_k["reward head"], strict=True)]
    assert gaps == sorted(gaps)


def test_how_many_tokens_the_head_on_logits_learned_from():
    report = json.loads((ROOT / "docs" / "reproduction" / "report.json").read_text())
    plan, weights = report["plan"], report["tasks"]["arithmetic"]["parameters"]["head_logits"]
    train, [task] = plan["train_sampling"], [task for task in plan["tasks"] if task["name"] == "arithmetic"]
    recorded = plan_recording(
        ElhsrConfig(signal="logits", base_vocab_size=weights - 1),
        getattr(torch, plan["dtype"]),
        task["train_prompts"] * train["n"],
        train["max_new_tokens"],
        parse_bytes(plan["disk_budget"]),
    )
    assert f"learned from one token in {recorded.every}" in " ".join(LIMITS.split())


def test_easy_sums_come_first():
    """Read off the prompts themselves."""
    task = find_task(SUMS)
    counts = {
        split: sum(re.search(r"\b\d\b", problem.question) is not None for problem in task.problems(split, count))
        for split, count in (("train", 400), ("test", 500))
    }
    told = f"they are {counts['train']} of the 400 training prompts and {counts['test']} of the 500 measured ones."
    assert told in " ".join(LIMITS.split())


def test_the_benchmarks_it_names():
    text = " ".join(LIMITS.split())
    pruning, cost, rounding = benchmark("pruning"), benchmark("cost"), benchmark("bfloat16")
    adaptive = pruning["modes"]["adaptive=0.02"]
    assert (
        f"real runs of {pruning['prompts']} prompts `adaptive=0.02` took {adaptive['tokens_to_exact']:.2f} of the "
        f"tokens and {adaptive['seconds_to_exact']:.2f} of the time" in text
    )
    head, judge = cost["costs"]["reward head"], cost["costs"]["text reward model"]
    assert f"{head['milliseconds']:.1f} ms a candidate, the text reward model {judge['milliseconds']:.0f} ms" in text
    assert f"{cost['candidates']} candidates of {cost['tokens_per_candidate']:.0f} tokens" in text
    [told] = [
        entry for entry in rounding["rows"] if (entry["decoding"], entry["rescored_in"]) == ("bfloat16", "float32")
    ]
    assert told["same_winner_share"] == 1.0
    assert (
        f"{told['candidates']} candidates for {rounding['prompts']} prompts the median difference was "
        f"{told['median_difference']:.3f} and the largest {told['max_difference']:.2f}" in text
    )
