"""Plain transformers, without hf_elhsr, loads code and head from the Hub, and selects like the package."""

import pytest
import torch
from loaded_heads import contents
from safetensors.torch import load_file
from test_custom_generate import ARCHITECTURES, job, run_in_plain_transformers, with_the_package

from hf_elhsr.hub import write_custom_generate
from tiny_models import tiny_head, tiny_model

JOBS = (*ARCHITECTURES, "older", "private")


@pytest.fixture(scope="module")
def published(hub, tmp_path_factory):
    """By a job's name: the model's folder, the head's, and the repository that the head is in."""
    root, places = tmp_path_factory.mktemp("published"), {}
    for seed, name in enumerate(JOBS):
        model = tiny_model(name if name in ARCHITECTURES else "llama")
        model.save_pretrained(root / name)
        tiny_head(model, seed=seed).save_pretrained(root / name / "head")
        repo_id = f"no-install/{name}"
        write_custom_generate(root / name / "head", repo_id)
        places[name] = root / name, root / name / "head", repo_id
    for name, (_, head, repo_id) in places.items():
        hub.store(repo_id, contents(head), private=name == "private")
    # The main branch has another head by now
    hub.repositories["no-install/older"].branches["v1"] = hub.repositories["no-install/older"].branches["main"]
    hub.store("no-install/older", contents(places["llama"][1]))
    return places


@pytest.fixture(scope="module")
def plain(hub, published, tmp_path_factory):
    model = published["llama"][0]
    hub.store("no-install/damaged", contents(published["llama"][1]))
    hub.change("/no-install/damaged/resolve/", lambda content: content.replace(b"1e-08", b"1e-07"))
    jobs = [
        job("untrusted", model, "no-install/llama", trust=False),
        *(job(name, published[name][0], published[name][2]) for name in ARCHITECTURES),
        job("older", published["older"][0], "no-install/older", revision="v1"),
        job("private", published["private"][0], "no-install/private", token="hf_reader"),
        job("stranger", model, "no-install/private"),
        job("damaged", model, "no-install/damaged"),
    ]
    return run_in_plain_transformers(
        tmp_path_factory.mktemp("plain"), jobs, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1"
    )


@pytest.mark.parametrize("name", JOBS)
def test_same_winner_and_rewards_as_the_package(plain, published, name):
    results, reports = plain
    assert "error" not in reports[name]
    given = load_file(results / f"{name}.safetensors")
    expected = with_the_package(*published[name][:2])
    assert torch.equal(given["sequences"], expected.sequences)
    assert torch.equal(given["candidates"], expected.candidates)
    torch.testing.assert_close(given["rewards"], expected.rewards)
    assert len(given["rewards"].unique()) > 4


def test_the_package_is_not_imported(plain):
    _, reports = plain
    assert "a test forbids it" in reports["import"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("untrusted", "trust_remote_code=True"),
        ("stranger", "no-install/private"),
        ("damaged", "does not match the Hub's hash"),
    ],
)
def test_refused_with_the_reason(plain, name, reason):
    _, reports = plain
    assert reason in reports[name]["error"]
    if name == "untrusted":
        assert reports[name]["code"] == []
