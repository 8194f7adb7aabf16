"""`hf-elhsr inspect`, and `generate --live`, on a tiny model."""

import json

import pytest
from tiny_tokenizer import tiny_tokenizer
from typer.testing import CliRunner

from hf_elhsr.cli.app import app
from tiny_models import tiny_head, tiny_model


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    model = tiny_model()
    for part in (model, tiny_tokenizer()):
        part.save_pretrained(folder / "model")
    tiny_head(model).save_pretrained(folder / "head")
    options = ["--model", folder / "model", "--head", folder / "head", "--n", 3, "--max-new-tokens", 12]
    return ["w7 w8 w9", *options, "--dtype", "float32"]


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_inspect(arguments, tmp_path):
    html, numbers = tmp_path / "new" / "why.html", tmp_path / "other" / "why.json"
    printed = run("inspect", *arguments, "--html", html, "--numbers", numbers)
    assert "winner" in printed.split("2. candidate")[0]
    assert "P(correct)" in printed
    assert "layers' share" in printed
    assert str(html) in printed.replace("\n", "")
    [prompt] = json.loads(numbers.read_text())["prompts"]
    assert prompt["text"].split()[-3:] == ["w7", "w8", "w9"]
    rewards = [candidate["reward"] for candidate in prompt["candidates"]]
    assert rewards == sorted(rewards, reverse=True)
    best = prompt["candidates"][0]
    assert f"1. candidate {best['index'] + 1} · R {best['reward']:+.2f}" in printed
    assert len(best["layer_shares"]["shares"]) == 4
    assert html.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_live_in_a_pipe_prints_only_the_winner(arguments):
    winner = run("generate", *arguments)
    assert run("generate", *arguments, "--live") == winner
    assert winner.split()[0] in run("generate", *arguments, "--live", "--all")
