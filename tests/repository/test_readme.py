"""The README's numbers are those of the shipped head's evaluation."""

import json
import re
from pathlib import Path

from hf_elhsr.evaluation import Evaluation

ROOT = Path(__file__).parents[2]
REPRODUCTION = ROOT / "docs" / "reproduction"
SHIPPED = ROOT / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"


def test_the_table_is_the_evaluations():
    readme = (ROOT / "README.md").read_text()
    evaluation = Evaluation.from_json((SHIPPED / "evaluation" / "test.json").read_text())
    for name, measured in evaluation.accuracy.items():
        bold = "**" if name == "reward head" else ""
        assert f"| {bold}{name}{bold} | {bold}{measured}{bold} |" in readme
    assert f"{evaluation.prompts} unseen prompts" in readme
    assert f"{evaluation.gap_closed} %" in readme


def pruned_more():
    """What benchmarks/pruning_more.json says, in the README's words."""
    result = json.loads((ROOT / "benchmarks" / "pruning_more.json").read_text())
    exact = f"{100 * result['modes']['exact']['accuracy']:.1f} %"
    yield f"On {result['prompts']} further prompts, exact best-of-8 answered {exact} right"
    for mode in ("prune=0.02", "adaptive=0.02"):
        low, high = (100 * end for end in result["modes"][mode]["accuracy_less_exact_interval"])
        yield f"`{mode}` {100 * result['modes'][mode]['accuracy_less_exact']:.1f} [{low:.1f}, {high:.1f}]"


def test_no_other_intervals_are_claimed():
    readme = " ".join((ROOT / "README.md").read_text().split())
    claimed = set(re.findall(r"\d+\.\d \[-?\d+\.\d, \d+\.\d\]", readme))
    measured = (SHIPPED / "README.md").read_text() + (REPRODUCTION / "report.md").read_text()
    measured = " ".join([*measured.split(), *pruned_more()])
    assert claimed
    assert all(interval in measured for interval in claimed)


def test_the_small_reproduction_is_its_report():
    section = (ROOT / "README.md").read_text().partition("## Against a text reward model")[2].partition("\n## ")[0]
    tasks = json.loads((REPRODUCTION / "report.json").read_text())["tasks"]
    arithmetic = tasks["arithmetic"]
    evaluation = Evaluation.from_json(json.dumps(arithmetic["evaluation"]))
    rows = [
        line.replace("*", "").strip("| ").split(" | ") for line in section.splitlines() if "[" in line and "|" in line
    ]
    for name, *_, right in rows[1:]:
        assert right.strip() == str(evaluation.accuracy[name]), name
    folders = {
        "reward head": "head",
        "text reward model": "text_reward_model",
        "head on logits": "head_logits",
        "head on top-20 log-probabilities": "head_top_log_probabilities",
        "head on 100 prompts": "head_100_prompts",
        "head on 200 prompts": "head_200_prompts",
        "head on 7 layers": "head_7_layers",
    }
    trained = {name: (parameters, seconds) for name, parameters, seconds, _ in rows[1:]}
    for name, folder in folders.items():
        expected = (f"{arithmetic['parameters'][folder]:,}", f"{arithmetic['training_seconds'][folder]:,.0f}")
        assert tuple(cell.strip() for cell in trained[name]) == expected
    told = " ".join(section.split())
    assert f"the same {evaluation.prompts:,} unseen prompts" in told
    ahead = evaluation.judges_minus
    few, more = (ahead[f"head on {prompts} prompts"] for prompts in (100, 200))
    logits, top = (ahead[f"head on {what}"] for what in ("logits", "top-20 log-probabilities"))
    votes, likely = "majority vote", "mean log-probability"
    assert f"ahead of majority vote by {few[votes]} points, and trained on 200 of {likely} by {more[likely]}." in told
    assert f"ahead of majority vote by {top[votes]} points and of mean log-probability by {top[likely]}" in told
    assert f"on logits by {logits[votes]} and {logits[likely]}." in told
    assert min(few[votes].low, more[likely].low, logits[votes].low, top[votes].low, top[likely].low) > 0
    assert logits[likely].low > 0
    same = evaluation.head_minus["head on 7 layers"]
    assert f"which is ahead of it by {same}." in told
    assert same.low < 0 < same.high
    text = evaluation.head_minus["text reward model"]
    assert f"surely ahead of the text reward model, by {text} points" in told
    assert text.low > 0
    learned = evaluation.head_minus["head and text, learned"]
    assert learned.low < 0 < learned.high
    sums = next(name for name in tasks if name.startswith("reasoning_gym:chain_sum"))
    for who in ("single sample", "reward head", f"head of {sums}", "head of coin_flip"):
        assert f"{evaluation.accuracy[who]} %" in " ".join(section.split()), who
    alice = Evaluation.from_json(json.dumps(tasks["reasoning_gym:aiw"]["evaluation"]))
    shown = [alice.accuracy[who] for who in ("reward head", "majority vote")]
    assert "gets {} % right and majority vote {} %".format(*shown) in told
    assert min(alice.head_minus[judge].low for judge in alice.head_minus if "weighted" not in judge) > 0
    # "As good": neither is surely ahead
    for task, other in (("coin_flip", "majority vote"), (sums, "mean log-probability")):
        ahead = tasks[task]["evaluation"]["head_minus"][other]
        assert ahead["low"] < 0 < ahead["high"]


def test_every_file_the_readme_links_to_is_there():
    readme = (ROOT / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", readme) if not link.startswith("http")]
    assert len(links) > 5
    for link in links:
        assert (ROOT / link.partition("#")[0]).exists(), link


def test_code_samples_as_the_head_was_trained():
    """Else what it says of P(correct), and decides by it, is of other candidates."""
    sampling = json.loads((SHIPPED / "training.json").read_text())["rollouts"]["sampling"]
    used = 0
    for file in ("README.md", "docs/tutorial.md"):
        for code in re.findall(r"^```python\n(.*?)^```$", (ROOT / file).read_text(), re.MULTILINE | re.DOTALL):
            # Single lines are no whole examples
            if re.search(r"model\.generate\(.*best_of_n=", code, re.DOTALL) and code.count("\n") > 1:
                used += 1
                for name in ("temperature", "top_p", "top_k", "max_new_tokens"):
                    assert re.search(rf'\b{name}(=|": ){sampling[name]}\b', code), (file, name, code)
    assert used == 5


def test_the_speeds_are_the_benchmarks():
    readme = (ROOT / "README.md").read_text()
    result = json.loads((ROOT / "benchmarks" / "decode.json").read_text())
    for name, entry in result["workloads"].items():
        if entry["settings"]["counts"]:
            generate, ours = entry["peers"]["generate"], entry["peers"]["best_of_n"]
            numbers = f"| {generate['median']:.1f} | {ours['median']:.1f} | {generate['best_of_n_ratio']:.2f} |"
            assert numbers in readme, name
    bars = {bar["what"]: bar["measured"] for bar in result["summary"]["bars"]}
    assert f"{bars['geometric mean of the seven, to generate']:.2f} of it" in readme
    assert f"{bars['geometric mean of the seven, to generate_text_reward_model']:.2f} of generate plus" in readme


def test_the_times_of_pruning_are_the_benchmarks():
    readme = " ".join((ROOT / "README.md").read_text().split())
    result = json.loads((ROOT / "benchmarks" / "pruning.json").read_text())
    prune, adaptive = result["modes"]["prune=0.02"], result["modes"]["adaptive=0.02"]
    assert f"real runs of {result['prompts']} unseen prompts" in readme
    assert f"{prune['seconds_to_exact']:.2f} of exact best-of-8's time and {prune['tokens_to_exact']:.2f} of" in readme
    assert (
        f"{adaptive['tokens_to_exact']:.2f} of the tokens but {adaptive['seconds_to_exact']:.2f} of the time" in readme
    )
    for sentence in pruned_more():
        assert sentence in readme, sentence


def test_what_training_costs_is_the_benchmarks():
    readme = " ".join((ROOT / "README.md").read_text().split())
    result = json.loads((ROOT / "benchmarks" / "training_speed.json").read_text())
    own, paper, published = (result["ways"][name] for name in ("default", "paper", "published"))
    assert {way["epochs"] for way in result["ways"].values()} == {40}
    assert not own["extrapolated"]
    assert published["measured_epochs"] == 1
    for told in (
        f"on these {result['rollouts']:,} rollouts: 40 epochs over the features",
        f"take {own['seconds']:.0f} s, and with the paper's recipe {paper['seconds']:.0f} s",
        f"one epoch took {published['measured_seconds']:.0f} s, so 40 would take "
        f"{published['seconds'] / own['seconds']:.0f} times as long",
    ):
        assert told in readme, told


def test_what_memory_training_takes_is_the_benchmarks():
    """Hardly more for more rollouts: features are mapped, and read batch by batch."""
    readme = " ".join((ROOT / "README.md").read_text().split())
    sizes = json.loads((ROOT / "benchmarks" / "training_memory.json").read_text())["sizes"]
    peaks = [size["peak_own_memory_mb"] for size in sizes]
    assert max(peaks) < 3000
    told = (
        f"{min(peaks)} to {max(peaks)} MB on {sizes[0]['rollouts']} to {sizes[-1]['rollouts']:,} of them, whose "
        f"features take up to {sizes[-1]['stored_features_mb'] / 1000:.1f} GB on disk"
    )
    assert told in readme, told


def test_what_a_reward_costs_is_the_benchmarks():
    readme = " ".join((ROOT / "README.md").read_text().split())
    result = json.loads((ROOT / "benchmarks" / "cost.json").read_text())
    one, many, text, published = (
        result["costs"][name]
        for name in ("reward head", "reward head, 16 prompts together", "text reward model", "published code")
    )
    over = result["text_reward_model_over"]
    less, least = (over[name]["milliseconds"] for name in ("reward head", "reward head, 16 prompts together"))
    on_few = [f"reward head on 7 layers{together}" for together in ("", ", 16 prompts together")]
    few, few_together = (result["costs"][name] for name in on_few)
    few_less, few_least = (over[name]["milliseconds"] for name in on_few)
    for told in (
        f"for {result['candidates']} candidates of {result['tokens_per_candidate']:.0f} tokens",
        f"{one['operations'] / 1e6:.1f} million operations and {one['milliseconds']:.1f} ms,",
        f"or {many['milliseconds']:.1f} ms where 16 prompts are decoded together",
        f"{text['operations'] / 1e9:.1f} billion operations and {text['milliseconds']:.0f} ms",
        f"{over['reward head']['operations']:,.0f} times the operations and {less:.0f} to {least:.0f} times the time",
        f"On seven layers it is {few['operations'] / 1e6:.1f} million operations and {few['milliseconds']:.1f} ms, or "
        f"{few_together['milliseconds']:.1f} ms: {few_less:.0f} to {few_least:.0f} times less time",
        f"takes {published['milliseconds']:.0f} ms",
    ):
        assert told in readme, told
