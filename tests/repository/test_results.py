"""Tables of results are generated from the files of the measurements, and sentences about them hold."""

import re
from pathlib import Path

import pytest
import results
import torch
from reproduction.report import report_markdown

from hf_elhsr import ElhsrConfig, find_task
from hf_elhsr.rollouts import parse_bytes, plan_recording

ROOT = Path(__file__).parents[2]
LIMITS = (ROOT / "docs" / "explanation" / "limits.md").read_text()
INTERVAL = r"-?\d+\.\d \[-?\d+\.\d, -?\d+\.\d\]"


@pytest.mark.parametrize("page", results.PAGES, ids=lambda page: page.name)
def test_the_tables_are_the_measurements(page):
    text = page.read_text()
    assert results.filled(text) == text, f"Run `make results`: {page.name} differs from the files of the measurements."


def test_every_table_is_shown():
    shown = {name for page in results.PAGES for name in re.findall(r"<!-- results: (\w+) -->", page.read_text())}
    assert shown == results.TABLES.keys()


@pytest.mark.parametrize("page", results.PAGES, ids=lambda page: page.name)
def test_no_interval_is_written_by_hand(page):
    by_hand = re.sub(r"<!-- results: \w+ -->.*?<!-- end -->", "", page.read_text(), flags=re.DOTALL)
    assert "<!-- end" not in by_hand
    assert re.findall(INTERVAL, by_hand) == []


def test_a_changed_number_is_noticed():
    text = (ROOT / "README.md").read_text()
    measured = str(results.shipped().accuracy["reward head"])
    assert results.filled(text.replace(measured, "99.9 [99.0, 100.0]")) == text


@pytest.mark.parametrize("number", ["parameters", "workload", "peers"])
def test_what_the_tables_name_is_measured(number):
    """Names that the tables give to measurements say what the files say."""
    if number == "parameters":
        # "7 of 31 layers"
        shipped = ElhsrConfig.from_pretrained(results.SHIPPED)
        [task] = [task for task in results.report()["plan"]["tasks"] if task["name"] == "arithmetic"]
        assert (len(task["few_layers"]), len(shipped.layers)) == (7, 31)
        assert task["few_layers"] == [12, 14, 16, 18, 20, 22, 24]
        assert (task["few_prompts"], task["train_prompts"]) == ([100, 200], 400)
    elif number == "workload":
        counted = {
            n: e["settings"] for n, e in results.benchmark("decode")["workloads"].items() if e["settings"]["counts"]
        }
        assert counted.keys() == results.WORKLOADS.keys()
        for name, settings in counted.items():
            assert f"n = {settings['n']}" in results.WORKLOADS[name]
            count = {1: "one ", 4: "four ", 16: "sixteen "}[settings["problems"]]
            assert name in ("reach_limit_n8", "large_vocabulary_n8") or results.WORKLOADS[name].startswith(count)
    else:
        # The geometric means of other_peers are those of the benchmark's own summary, where it has them
        means = {bar["what"]: bar["measured"] for bar in results.benchmark("decode")["summary"]["bars"]}
        for peer, line in (("generate", 2), ("generate_text_reward_model", 3)):
            mean = f"{means[f'geometric mean of the seven, to {peer}']:.2f}"
            assert results.other_peers().splitlines()[line].endswith(f"| {mean} |")


def test_no_path_of_a_machine_is_shown():
    """Paths of the machine that measured are of no use elsewhere."""
    texts = [file for pattern in ("docs/**/*", "benchmarks/*.json", "model_cards/**/*") for file in ROOT.glob(pattern)]
    read = [file for file in texts if file.suffix in (".json", ".md", ".svg")]
    assert len(read) > 20
    assert [file.name for file in read if re.search(r'["\s`(]/(?:home|root|tmp|work|Users)/', file.read_text())] == []


def test_how_much_was_measured():
    text = " ".join(LIMITS.split())
    evaluations = results.reported()
    [others] = {evaluation.prompts for name, evaluation in evaluations.items() if name != "arithmetic"}
    words = evaluations["arithmetic"].prompts
    assert f"measured on {words:,} unseen prompts of word problems, and {others} of each other task" in text
    assert f"({results.shipped().prompts:,} unseen prompts)" in text
    assert {evaluation.n for evaluation in [*evaluations.values(), results.shipped()]} == {8}


def test_what_is_said_of_the_tables_holds():
    """Clearly ahead, clearly behind, or neither: what the sentences next to the tables say."""
    evaluations = results.reported()
    arithmetic, flips, alice, sums = (evaluations[name] for name in results.TASKS)
    for measured in (arithmetic, alice):
        assert min(measured.head_minus[judge].low for judge in results.NEEDS_NO_TRAINING) > 0
    assert min(alice.head_minus[judge].low for judge in alice.head_minus if "weighted" not in judge) > 0
    # "No better"
    for measured in (flips.head_minus["majority vote"], sums.head_minus["mean log-probability"]):
        assert measured.low < 0 < measured.high
    assert sums.head_minus["majority vote"].low > 0
    assert flips.head_minus["mean log-probability"].low > 0
    # "What guessing gives", between yes and no
    correct = flips.base_rate / flips.answered
    assert abs(correct - 0.5) < 2 * (0.25 / (flips.prompts * flips.n * flips.answered)) ** 0.5
    few = arithmetic.judges_minus["head on 100 prompts"]["majority vote"]
    assert few.low > 0
    # "By less than half as much"
    assert 0.4 < few.value / arithmetic.head_minus["majority vote"].value < 0.5
    # "Do as well"
    layers = arithmetic.head_minus["head on 7 layers"]
    assert layers.low < 0 < layers.high
    # "All are clearly ahead", and those that see less by less
    signals = ("head on logits", "head on top-20 log-probabilities", "head on 7 layers")
    assert min(arithmetic.judges_minus[judge]["mean log-probability"].low for judge in signals) > 0
    # "Less than a quarter of the features"
    assert 7 / 31 < 0.25
    # "Worse than a single sample", and what holds one way round only
    worse = ((flips, "head of arithmetic"), (sums, "head of coin_flip"), (arithmetic, "head of reasoning_gym:aiw"))
    for elsewhere, judge in worse:
        assert elsewhere.accuracy[judge].high < elsewhere.accuracy["single sample"].low
    assert sums.head_minus["head of arithmetic"].low < 0
    assert arithmetic.head_minus[f"head of {results.SUMS}"].low > 0
    # "A little ahead"
    assert 0 < arithmetic.head_minus["text reward model"].low < arithmetic.head_minus["text reward model"].value < 3
    learned = arithmetic.head_minus["head and text, learned"]
    assert learned.low < 0 < learned.high
    seen, unseen = results.shipped(), results.shipped("unseen_templates")
    assert unseen.expected_calibration_error > seen.expected_calibration_error
    assert unseen.head_minus["majority vote"].low > 0
    gaps = [best.value - own.value for best, own in zip(seen.by_k["oracle"], seen.by_k["reward head"], strict=True)]
    assert gaps == sorted(gaps)


def test_what_is_said_of_benchmarks_holds():
    """Fewer tokens but more time; memory that does not grow; the same winners in bfloat16; epochs that were run."""
    adaptive = results.benchmark("pruning")["modes"]["adaptive=0.02"]
    assert adaptive["tokens_to_exact"] < 1 < adaptive["seconds_to_exact"]
    assert "note" in results.benchmark("pruning_more")
    peaks = [size["peak_own_memory_mb"] for size in results.benchmark("training_memory")["sizes"]]
    assert max(peaks) < 3000
    ways = results.benchmark("training_speed")["ways"]
    assert {way["epochs"] for way in ways.values()} == {40}
    assert [name for name, way in ways.items() if way["extrapolated"]] == ["published"]
    rounding = {(row["decoding"], row["rescored_in"]): row for row in results.benchmark("bfloat16")["rows"]}
    assert rounding["bfloat16", "float32"]["same_winner_share"] == 1.0


def test_how_it_was_measured():
    """Numbers in sentences that say how something was measured."""
    readme, depth, limits = (" ".join(page.read_text().split()) for page in results.PAGES)
    plan, [arithmetic, *others] = results.report()["plan"], results.report()["plan"]["tasks"]
    samplings = [plan["train_sampling"], plan["test_sampling"], results.shipped().sampling]
    samplings.append(results.shipped("unseen_templates").sampling)
    named = {(sampling["temperature"], sampling["top_p"], sampling["max_new_tokens"]) for sampling in samplings}
    assert named == {(0.8, 0.9, 64)}
    assert "temperature 0.8, top_p 0.9, at most 64 new tokens" in readme
    for page in (depth, limits):
        assert "sampled at temperature 0.8 and top_p 0.9, at most 64 new tokens" in page
    assert {task["train_prompts"] for task in (arithmetic, *others)} == {400}
    assert "heads trained on 400 prompts of a task" in limits
    assert plan["train_sampling"]["n"] == 8
    assert "the same 400 prompts of word problems with 8 rollouts each" in depth
    assert arithmetic["text_reward_model_epochs"] == 2
    assert "fine-tuned as a whole for two epochs" in depth
    assert "fine-tuned as a classifier for two epochs" in limits
    assert plan["disk_budget"] == "8GB"
    assert "the report's disk budget of 8 GB" in limits
    # "Less than a quarter" of the features and of the operations
    assert len(arithmetic["few_layers"]) == 7
    few, every = (results.benchmark("cost")["costs"][name] for name in ("reward head on 7 layers", "reward head"))
    assert few["operations"] < every["operations"] / 4
    assert few["parameters"] < every["parameters"] / 4
    for name, entry in results.benchmark("decode")["workloads"].items():
        if entry["settings"]["counts"]:
            repeats = {len(entry["peers"][peer]["seconds"]) for peer in ("generate", "best_of_n")}
            assert repeats == ({1} if entry["settings"]["problems"] == 16 else {2}), name
    assert "Medians of two runs after a warm-up (sixteen prompts: one run)" in depth
    questions = re.search(r'"--questions", type=int, default=(\d+)', (ROOT / "examples" / "demo.py").read_text())[1]
    assert f"then a table over {questions} questions" in readme


def test_enough_is_not_written_by_hand():
    """Percentages, points, seconds and milliseconds are in tables only."""
    for page in results.PAGES:
        by_hand = re.sub(r"<!-- results: \w+ -->.*?<!-- end -->", "", page.read_text(), flags=re.DOTALL)
        by_hand = by_hand.replace("95 % ", "")
        assert re.findall(r"\d+(?:\.\d+)? (?:%|points|s|ms|seconds)(?!\w)", by_hand) == [], page.name


def test_how_many_tokens_the_head_on_logits_learned_from():
    report = results.report()
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
    """Counted in the prompts themselves."""
    task = find_task(results.SUMS)
    counts = {
        split: sum(re.search(r"\b\d\b", problem.question) is not None for problem in task.problems(split, count))
        for split, count in (("train", 400), ("test", 500))
    }
    stated = f"they are {counts['train']} of the 400 training prompts and {counts['test']} of the 500 measured ones."
    assert stated in " ".join(LIMITS.split())


def test_the_report_is_written_from_its_numbers():
    assert results.REPORT.read_text() == report_markdown(results.report()), "Run `make results`."
