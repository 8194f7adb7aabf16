"""The README's numbers are those of the shipped head's evaluation."""

import re
from pathlib import Path

from hf_elhsr.evaluation import Evaluation

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"


def test_the_table_is_the_evaluations():
    readme = (ROOT / "README.md").read_text()
    evaluation = Evaluation.from_json((SHIPPED / "evaluation" / "test.json").read_text())
    for name, measured in evaluation.accuracy.items():
        bold = "**" if name == "reward head" else ""
        assert f"| {bold}{name}{bold} | {bold}{measured}{bold} |" in readme
    assert f"{evaluation.prompts} unseen prompts" in readme
    assert f"{evaluation.gap_closed} %" in readme


def test_no_other_intervals_are_claimed():
    readme = (ROOT / "README.md").read_text()
    claimed = set(re.findall(r"\d+\.\d \[-?\d+\.\d, \d+\.\d\]", readme))
    card = (SHIPPED / "README.md").read_text()
    assert claimed
    assert all(interval in card for interval in claimed)


def test_every_file_the_readme_links_to_is_there():
    readme = (ROOT / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", readme) if not link.startswith("http")]
    assert len(links) > 5
    for link in links:
        assert (ROOT / link).exists(), link
