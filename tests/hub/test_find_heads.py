"""The heads for a language model are found on the Hub by their cards, best first: over real HTTP."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub.utils import yaml_dump

from hf_elhsr import find_heads
from hf_elhsr.hub.card import render_card
from tiny_models import tiny_model

SHIPPED = Path(__file__).parents[2] / "model_cards" / "elhsr-smollm2-135m-instruct-arithmetic"
# Of this module's own
BASE = "finding/base"


def result(task, value, split="test", metric="accuracy", name="best-of-8 accuracy", **ends):
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": task, "type": task, "split": split},
        "metrics": [{"type": metric, "value": value, "name": name, "args": ends}],
    }


def card(*results, base_model=BASE, tags=("elhsr", "signal:logits"), **more):
    data = {"base_model": base_model, "tags": list(tags)} | more
    if results:
        data["model-index"] = [{"name": "head", "results": list(results)}]
    return {"README.md": f"---\n{yaml_dump(data)}---\n# A head\n".encode()}


HEADS = {
    "finding/middling": card(result("sums", 30.0), result("coins", 90.0)),
    "finding/best": card(result("sums", 99.0, split="validation"), result("sums", 40.0, low=38.0, high=42.5)),
    "finding/worst": card(result("sums", 2.5, low=1.0, high="more"), tags=["elhsr"]),
    "finding/untold": card(),
    "finding/boasting": card(result("sums", "much"), result("sums", 250.0), result("sums", float("inf"))),
    "finding/other-metric": card(result("sums", 80.0, metric="f1"), result("sums", True), result("sums", 70, name=8)),
    # The client's own classes cannot hold this
    "finding/nonsense": card(
        **{"model-index": [{"name": "x", "results": [result("sums", 1.0) | {"source": "x"}, 5]}, 7]}
    ),
    "finding/other-base": card(result("sums", 95.0), base_model=f"{BASE}-chat"),
    "finding/no-head": card(result("sums", 95.0), tags=["lora"]),
    "finding/no-card": {"config.json": b"{}"},
}


@pytest.fixture(scope="module", autouse=True)
def heads(hub):
    for repo_id, files in HEADS.items():
        hub.store(repo_id, files)
    hub.store("finding/secret", card(result("sums", 35.0)), private=True)


def found(model, **options):
    return [dataclasses.asdict(head) for head in find_heads(model, **options)]


def found_for_a_model(name):
    model = tiny_model()
    model.config._name_or_path = name
    return found(model)


def names(heads):
    return [head["repo_id"].partition("/")[2] for head in heads]


def test_best_first_and_those_without_a_result_last(client):
    listed = client(found, BASE)
    assert names(listed) == [
        "best",
        "middling",
        "worst",
        "nonsense",
        "boasting",
        "other-metric",
        "untold",
    ]
    best, middling, worst, _, *untold = listed
    # What was measured on a split "test" goes before
    assert (best["task"], best["split"], best["accuracy"]) == ("sums", "test", 0.4)
    assert best["interval"] == (0.38, 0.425)
    assert best["signal"] == "logits"
    assert best["last_modified"].year == 2026
    assert (middling["task"], middling["accuracy"], middling["interval"]) == ("sums", 0.3, None)
    assert (worst["interval"], worst["signal"]) == (None, None)
    assert {head["accuracy"] for head in untold} == {None}


def test_on_one_task(client):
    assert [(head["repo_id"], head["accuracy"]) for head in client(found, BASE, task="coins")] == [
        ("finding/middling", 0.9)
    ]
    assert client(found, BASE, task="poems") == client(found, "finding/nothing") == []


def test_private_heads_for_those_who_may_see_them(client):
    assert names(client(found, BASE, token="hf_reader"))[:3] == ["best", "secret", "middling"]


def test_the_shipped_card_is_found_as_it_was_measured(hub, client):
    hub.store("finding/shipped", {"README.md": render_card(SHIPPED, "finding/shipped").encode()})
    heads = client(found, "HuggingFaceTB/SmolLM2-135M-Instruct")
    [head] = [head for head in heads if head["repo_id"] == "finding/shipped"]
    measured = json.loads((SHIPPED / "evaluation" / "test.json").read_text())["accuracy"]["reward head"]
    assert (head["task"], head["split"], head["signal"]) == ("arithmetic", "test", "hidden_states")
    # As the card rounds them
    assert head["accuracy"] == pytest.approx(measured["value"], abs=0.0005)
    assert head["interval"] == pytest.approx((measured["low"], measured["high"]), abs=0.00051)


def test_for_a_model_that_was_loaded(client):
    assert names(client(found_for_a_model, BASE)) == names(client(found, BASE))


def test_by_a_short_name_from_before_organisations(hub, client):
    hub.store(BASE, {"config.json": b"{}"})
    hub.bare_names["base"] = BASE
    assert names(client(found, "base")) == names(client(found_for_a_model, "base")) == names(client(found, BASE))
    caught = client.error(found, "nobodys")
    assert "OSError" in caught.types
    assert "Could not look up the model 'nobodys': the Hub answered 401" in caught.text


@pytest.mark.parametrize("model", ["folder", "./org/base", "/org/base", "", "a b"])
def test_only_models_of_the_hub_have_heads_there(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="Expected a model's id on the Hub"):
        find_heads(model)


def test_a_hub_that_refuses_and_one_that_cannot_be_reached(hub, client):
    hub.fail(503, "/api/models", times=50)
    try:
        refused = client.error(found, BASE)
    finally:
        hub.faults.clear()
    hub.stop()
    try:
        away = client.error(found, BASE)
    finally:
        hub.start()
    for caught, words in ((refused, "the Hub answered 503"), (away, "the Hub could not be reached")):
        assert "OSError" in caught.types
        assert f"Could not list the heads for {BASE!r}: {words}" in caught.text
        assert "\n" not in caught.text


def test_the_command(hub, tmp_path):
    # A card is anybody's text
    hostile = "\x1b]0;owned\x07[red]sums[/red]\u202e"
    hub.store("watched/head", card(result(hostile, 10.0, low=8.0, high=12.0), base_model="watched/base"))
    kept = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "hf_elhsr.cli", "heads", *arguments],
            env=kept | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "COLUMNS": "180"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for arguments in ((BASE, "--reported-task", "sums", "--json"), ("watched/base",))
    ]
    as_json, table = (process.communicate()[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    answer = json.loads(as_json)
    assert answer["model"] == BASE
    listed = answer["heads"]
    assert names(listed) == ["best", "middling", "worst", "nonsense"]
    assert (listed[0]["accuracy"], listed[0]["interval"]) == (0.4, [0.38, 0.425])
    assert "watched/head" in table
    assert "10.0 [8.0, 12.0]" in table
    assert "[red]sums[/red]" in table
    assert not {"\x1b", "\x07", "\u202e"} & set(table)
