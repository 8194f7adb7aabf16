"""Evaluations as Markdown and as plots."""

import dataclasses
import xml.etree.ElementTree

import pytest

from hf_elhsr.evaluation import Evaluation, Measured, evaluation_markdown, plot_evaluation


def measured(value):
    return Measured(value, value - 0.02, value + 0.02)


@pytest.fixture
def evaluation():
    return Evaluation(
        task="made",
        split="test",
        prompts=50,
        n=3,
        sampling={"temperature": 0.8, "top_p": 0.9, "top_k": 0, "max_new_tokens": 64},
        head_sha256="0",
        accuracy={"single sample": measured(0.123), "reward head": measured(0.456), "oracle": measured(0.6)},
        head_minus={"single sample": measured(0.333)},
        gap_closed=measured(0.7),
        area_under_curve=0.81,
        expected_calibration_error=0.05,
        base_rate=0.123,
        skip=7,
        judges_minus={"probe": {"majority vote": measured(0.111), "mean log-probability": measured(-0.05)}},
        by_k={"reward head": [measured(0.123), measured(0.3), measured(0.456)]},
    )


def test_markdown_says_what_was_measured(evaluation):
    text = evaluation_markdown(evaluation)
    assert "50 prompts of the split `test` after its first 7, best of 3" in text
    assert "| single sample | 12.3 [10.3, 14.3] | 33.3 [31.3, 35.3] |" in text
    assert "| **reward head** | **45.6 [43.6, 47.6]** |  |" in text
    assert "| probe | 11.1 [9.1, 13.1] | -5.0 [-7.0, -3.0] |" in text
    assert "150 rollouts, 12.3 % of them correct: AUC 0.810, expected calibration error of sigmoid(R) 0.050." in text
    whole = evaluation_markdown(dataclasses.replace(evaluation, answered=0.5, brier_score=0.0714))
    assert "150 rollouts, 50.0 % of them with a final answer and 12.3 % of them correct: AUC" in whole
    assert "sigmoid(R) 0.050, Brier score 0.071." in whole
    assert [line for line in text.splitlines() if line.startswith("| 2 |")] == ["| 2 | 30.0 [28.0, 32.0] |"]


def test_svg_is_the_same_for_the_same_numbers_and_png_is_an_image(evaluation, tmp_path):
    for name in ("a.svg", "b.svg", "c.png"):
        plot_evaluation(evaluation, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    words = "".join(xml.etree.ElementTree.parse(tmp_path / "a.svg").getroot().itertext())
    for wanted in ("made: 50 prompts", "reward head", "candidates"):
        assert wanted in words
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    other = dataclasses.replace(evaluation, by_k={"reward head": [measured(0.2)] * 3})
    plot_evaluation(other, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() != (tmp_path / "b.svg").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.svg", "b.svg", "c.png"]


def test_refuses_what_cannot_be_drawn(evaluation, tmp_path):
    with pytest.raises(ValueError, match=r"as \.svg or \.png, not as 'plot\.pdf'"):
        plot_evaluation(evaluation, tmp_path / "plot.pdf")
    with pytest.raises(ValueError, match="evaluate the rollouts again"):
        plot_evaluation(dataclasses.replace(evaluation, by_k={}), tmp_path / "plot.svg")
    assert not list(tmp_path.iterdir())
