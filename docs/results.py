"""Generate every measured table of the documentation from the JSON files of the measurements: `make results`.

A table stands between `<!-- results: NAME -->` and `<!-- end -->` in a page; this script rewrites what is between them,
and docs/reproduction/report.md as a whole. A test compares the pages with the files, so that no page shows a number
that was not measured.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# In examples/, which `make results` and the tests put on the path
from reproduction.report import report_markdown

from hf_elhsr import Evaluation, TradeOff
from hf_elhsr.evaluation.best_of_n import NEEDS_NO_TRAINING
from hf_elhsr.evaluation.tables import ResultTable, savings_table, strategy_table

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "explanation" / "limits.md")
REPORT = ROOT / "docs" / "reproduction" / "report.md"
SHIPPED = ROOT / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
SUMS = "reasoning_gym:chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=2"
#: The report's tasks, and their names on the pages.
TASKS = {
    "arithmetic": "word problems",
    "coin_flip": "coin flips",
    "reasoning_gym:aiw": "Alice problems",
    SUMS: "bare sums",
}
_BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def benchmark(name: str) -> dict[str, Any]:
    """Read a file of benchmarks/."""
    result: dict[str, Any] = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())
    return result


def report() -> dict[str, Any]:
    """Read the report of `make reproduction`: its plan and, by task, what was measured."""
    result: dict[str, Any] = json.loads(REPORT.with_suffix(".json").read_text())
    return result


def reported() -> dict[str, Evaluation]:
    """Read the report's evaluations by task, in the order of [`TASKS`]."""
    return {name: Evaluation.from_json(json.dumps(task["evaluation"])) for name, task in report()["tasks"].items()}


def shipped(split: str = "test") -> Evaluation:
    """Read the shipped head's evaluation."""
    return Evaluation.from_json((SHIPPED / "evaluation" / f"{split}.json").read_text())


def shipped_tradeoff() -> TradeOff:
    """Read what pruning and adaptive n save and cost with the shipped head."""
    return TradeOff.from_json((SHIPPED / "tradeoff" / "test.json").read_text())


def table(titles: Iterable[str], rows: Iterable[Iterable[object]], bold: str | None = None) -> str:
    """Markdown of a table, with the row bold that begins with `bold`."""
    return ResultTable(list(titles), [[str(cell) for cell in row] for row in rows], bold).markdown()


# The shipped head


def quality() -> str:
    measured = shipped()
    own = strategy_table(measured)
    shown = ResultTable(own.titles[:2], [row[:2] for row in own.rows], own.bold)
    return f"""{shown.markdown()}

{measured.prompts:,} unseen prompts, {measured.n} candidates each. The head closes {measured.gap_closed} % of the gap
between a single sample and the oracle, which finds a correct candidate wherever there is one."""


def quality_in_depth() -> str:
    return strategy_table(shipped()).markdown()


def wordings() -> str:
    rows = []
    for split, name in (("test", "as in training"), ("unseen_templates", "never seen")):
        own = shipped(split)
        accuracy = (own.accuracy[judge] for judge in ("single sample", "majority vote", "reward head"))
        rows.append((name, f"{own.prompts:,}", *accuracy, own.gap_closed, f"{own.expected_calibration_error:.3f}"))
    heads = ("wordings", "prompts", "single sample", "majority vote", "reward head", "gap closed, %")
    return table((*heads, "calibration error of sigmoid(R)"), rows)


def candidates() -> str:
    curves = shipped().by_k
    rows = ((k, *(curve[k - 1] for curve in curves.values())) for k in (1, 2, 4, 8))
    return table(("candidates", *curves), rows)


def tokens() -> str:
    return savings_table(shipped_tradeoff()).markdown()


def real_runs() -> str:
    rows = []
    for name in ("pruning", "pruning_more"):
        result = benchmark(name)
        # Other work ran on the machine during the second run
        timed = "note" not in result
        for mode, own in result["modes"].items():
            low, high = (100 * end for end in own["accuracy_less_exact_interval"])
            difference = f"{100 * own['accuracy_less_exact']:.1f} [{low:.1f}, {high:.1f}]"
            rows.append(
                (
                    mode if mode == "exact" else f"`{mode}`",
                    result["prompts"],
                    f"{own['tokens_to_exact']:.2f}",
                    f"{own['seconds_to_exact']:.2f}" if timed else "",
                    f"{100 * own['accuracy']:.1f}",
                    "" if mode == "exact" else difference,
                )
            )
    heads = ("setting", "prompts", "tokens, of exact", "time, of exact", "correct, %", "difference, points")
    return table(heads, rows)


# Speed and cost

WORKLOADS = {
    "one_short_n8": "one short prompt, n = 8",
    "four_ragged_n8": "four short prompts, n = 8",
    "sixteen_ragged_n8": "sixteen short prompts, n = 8",
    "one_short_n32": "one short prompt, n = 32",
    "long_prompt_n16": "one prompt of {prompt} tokens, n = 16",
    "reach_limit_n8": "{new} new tokens, n = 8",
    "large_vocabulary_n8": "tiny model, vocabulary of 150,000, n = 8",
}


def speed() -> str:
    result = benchmark("decode")
    rows: list[tuple[object, ...]] = []
    for name, entry in result["workloads"].items():
        if entry["settings"]["counts"]:
            generate, ours = entry["peers"]["generate"], entry["peers"]["best_of_n"]
            called = WORKLOADS[name].format(
                prompt=f"{entry['prompt_tokens'][0]:,}", new=entry["settings"]["max_new_tokens"]
            )
            times = (f"{generate['median']:.1f}", f"{ours['median']:.1f}", f"{generate['best_of_n_ratio']:.2f}")
            rows.append((called, *times))
    means = {bar["what"]: bar["measured"] for bar in result["summary"]["bars"]}
    rows.append(("geometric mean", "", "", f"{means['geometric mean of the seven, to generate']:.2f}"))
    return table(("seconds of a whole call", "`generate`", "best of n", "ratio"), rows)


def other_peers() -> str:
    peers = {
        "generate": "`generate(num_return_sequences=n)`, no scoring",
        "generate_text_reward_model": "and a text reward model of the same size, candidate by candidate",
        "generate_text_reward_model_batched": "and a text reward model of the same size, all candidates in one batch",
        "generate_rescore": "and a forward pass per candidate, scored by the head",
    }
    workloads = [entry for entry in benchmark("decode")["workloads"].values() if entry["settings"]["counts"]]

    def mean(peer: str) -> float:
        product = 1.0
        for entry in workloads:
            product *= entry["peers"]["best_of_n"]["median"] / entry["peers"][peer]["median"]
        return float(product ** (1 / len(workloads)))

    rows = ((called, f"{mean(peer):.2f}") for peer, called in peers.items())
    return table(("compared with", "best of n takes, geometric mean of the ratios"), rows)


def cost() -> str:
    result = benchmark("cost")
    rows = []
    for name, own in result["costs"].items():
        low, high = own["milliseconds_from_to"]
        spread = f"{own['milliseconds']:.1f} ({low:.1f} to {high:.1f})"
        rows.append((name, f"{own['parameters']:,}", f"{own['operations'] / 1e6:,.1f}", spread))
    heads = ("rewards by", "parameters", "million operations a candidate", "ms a candidate (from to)")
    called = {"published code": "the language model once more, then the head"}
    shown = table(heads, ((called.get(name, name), *cells) for name, *cells in rows))
    return f"{shown}\n\n{result['candidates']:,} candidates, of {result['tokens_per_candidate']:.0f} tokens on average."


def times_less() -> str:
    over = benchmark("cost")["text_reward_model_over"]
    rows = (
        (name, *(f"{own[what]:,.0f}" for what in ("parameters", "operations", "milliseconds")))
        for name, own in over.items()
    )
    return table(("the text reward model needs, times those of", "parameters", "operations", "time"), rows)


def cost_in_short() -> str:
    result = benchmark("cost")
    training = report()["tasks"]["arithmetic"]["training_seconds"]
    trained = {"reward head": training["head"], "text reward model": training["text_reward_model"]}
    few = training["head_7_layers"]
    rows = []
    for name, called in (
        ("reward head", "reward head"),
        ("reward head on 7 layers", "reward head on 7 of 31 layers"),
        ("text reward model", "text reward model of the same size"),
    ):
        own = result["costs"][name]
        seconds = trained.get(name, few)
        operations = f"{own['operations'] / 1e6:,.1f}"
        rows.append((called, f"{own['parameters']:,}", operations, f"{own['milliseconds']:.1f}", f"{seconds:,.0f}"))
    heads = (
        "rewards by",
        "parameters",
        "million operations a candidate",
        "ms a candidate",
        "training on 400 prompts, s",
    )
    return table(heads, rows)


def training_speed() -> str:
    result = benchmark("training_speed")
    called = {"default": "stored features", "paper": "stored features, the paper's recipe"}
    called["published"] = "the language model in every epoch, as the paper's code is described"
    own = result["ways"]["default"]["seconds"]
    rows = []
    for name, way in result["ways"].items():
        measured = f"{way.get('measured_epochs', way['epochs'])}"
        seconds = f"{way.get('measured_seconds', way['seconds']):,.0f}"
        ratio = f"{way['seconds'] / own:.1f}"
        rows.append((called[name], measured, seconds, f"{way['seconds']:,.0f}", ratio))
    heads = ("training", "epochs run", "seconds", f"seconds for {result['ways']['default']['epochs']} epochs", "ratio")
    return f"{table(heads, rows)}\n\n{result['rollouts']:,} rollouts."


def training_memory() -> str:
    rows = (
        (f"{size['rollouts']:,}", f"{size['stored_features_mb']:,}", f"{size['peak_own_memory_mb']:,}")
        for size in benchmark("training_memory")["sizes"]
    )
    return table(("rollouts", "features on disk, MB", "own memory at its peak, MB"), rows)


def rounding() -> str:
    # A combination that was measured twice is in the file twice; the later entry has more numbers
    measured = {(own["decoding"], own["rescored_in"]): own for own in benchmark("bfloat16")["rows"]}
    rows = (
        (
            *dtypes,
            own["candidates"],
            f"{own['median_difference']:.2g}",
            f"{own['max_difference']:.2g}",
            f"{100 * own['same_winner_share']:.0f}" if "same_winner_share" in own else "",
        )
        for dtypes, own in measured.items()
    )
    heads = ("decoded in", "scored again in", "candidates", "median difference", "largest", "same winner, % of prompts")
    return table(heads, rows)


# The report of `make reproduction`


def judges() -> str:
    measured = reported()["arithmetic"]
    own = report()["tasks"]["arithmetic"]
    folders = {
        "reward head": "head",
        "text reward model": "text_reward_model",
        "last-token probe": "probe",
        "head on logits": "head_logits",
        "head on top-20 log-probabilities": "head_top_log_probabilities",
        "head on 100 prompts": "head_100_prompts",
        "head on 200 prompts": "head_200_prompts",
        "head on 7 layers": "head_7_layers",
    }
    rows = []
    for name, accuracy in measured.accuracy.items():
        folder = folders.get(name)
        trained = ("", "")
        if folder is not None:
            trained = (f"{own['parameters'][folder]:,}", f"{own['training_seconds'][folder]:,.0f}")
        ahead = measured.judges_minus.get(name, {})
        if name == "reward head":
            ahead = {judge: measured.head_minus[judge] for judge in NEEDS_NO_TRAINING}
        compared = [ahead.get(judge, "") for judge in NEEDS_NO_TRAINING]
        rows.append([called(name), *trained, accuracy, *compared, measured.head_minus.get(name, "")])
    titles = [f"ahead of {judge} by" for judge in NEEDS_NO_TRAINING]
    heads = ("answer by", "parameters", "training, s", "correct", *titles)
    return table((*heads, "head is ahead by"), rows, bold="reward head")


def called(judge: str) -> str:
    """Name a head of another task as the pages name that task."""
    task = judge.removeprefix("head of ")
    return f"head of {TASKS[task]}" if task in TASKS else judge


def without_training() -> str:
    rows = []
    for name, own in reported().items():
        shown = [own.accuracy[judge] for judge in ("single sample", *NEEDS_NO_TRAINING, "reward head")]
        rows.append((TASKS[name], *shown, *(own.head_minus[judge] for judge in NEEDS_NO_TRAINING)))
    heads = (
        "task",
        "single sample",
        *NEEDS_NO_TRAINING,
        "reward head",
        *(f"ahead of {judge}" for judge in NEEDS_NO_TRAINING),
    )
    return table(heads, rows)


def elsewhere() -> str:
    measured = reported()
    rows: list[tuple[object, ...]] = []
    for trained in TASKS:
        judge = {name: "reward head" if name == trained else f"head of {trained}" for name in measured}
        rows.append((TASKS[trained], *(own.accuracy[judge[name]] for name, own in measured.items())))
    rows.append(("none: single sample", *(own.accuracy["single sample"] for own in measured.values())))
    return table(("trained on", *TASKS.values()), rows)


def answering() -> str:
    rows = (
        (
            TASKS[name],
            f"{100 * own.answered:.1f}",
            f"{100 * own.base_rate:.1f}",
            f"{100 * own.base_rate / own.answered:.1f}",
        )
        for name, own in reported().items()
        if own.answered
    )
    heads = ("task", "rollouts with an answer, %", "correct rollouts, %", "correct among those with an answer, %")
    return table(heads, rows)


def training_size() -> str:
    own = reported()["arithmetic"]
    rows = [
        (f"{prompts}", own.accuracy[judge], own.judges_minus[judge]["majority vote"])
        for prompts, judge in ((100, "head on 100 prompts"), (200, "head on 200 prompts"))
    ]
    rows.append(("400", own.accuracy["reward head"], own.head_minus["majority vote"]))
    return table(("training prompts, 8 rollouts each", "correct", "ahead of majority vote"), rows)


def signals() -> str:
    own = reported()["arithmetic"]
    rows = [("hidden states of all 31 layers", own.accuracy["reward head"], own.head_minus["mean log-probability"])]
    for signal, judge in (
        ("hidden states of layers 12, 14, ... 24", "head on 7 layers"),
        ("logits", "head on logits"),
        ("top-20 log-probabilities", "head on top-20 log-probabilities"),
    ):
        rows.append((signal, own.accuracy[judge], own.judges_minus[judge]["mean log-probability"]))
    return table(("signal", "correct", "ahead of mean log-probability"), rows)


def beside_text() -> str:
    own = reported()["arithmetic"]
    judges = ("reward head", "text reward model", "head and text, learned")
    rows = ((judge, own.accuracy[judge], own.head_minus.get(judge, "")) for judge in judges)
    return table(("answer by", "correct", "head is ahead by"), rows)


TABLES: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        quality,
        quality_in_depth,
        wordings,
        candidates,
        tokens,
        real_runs,
        speed,
        other_peers,
        cost,
        cost_in_short,
        times_less,
        training_speed,
        training_memory,
        rounding,
        judges,
        without_training,
        elsewhere,
        answering,
        training_size,
        signals,
        beside_text,
    )
}


def filled(page: str) -> str:
    """The text of a page with its tables as they are measured now.

    Raises:
        KeyError: The page names a table that is not in [`TABLES`].
    """
    return _BLOCK.sub(lambda block: f"{block[1]}{TABLES[block[2]]()}\n{block[3]}", page)


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text()))
    REPORT.write_text(report_markdown(report()))


if __name__ == "__main__":
    main()
