"""Best-of-n through an OpenAI-compatible API: recorded answers of llama.cpp's server, replayed over HTTP."""

import json
import math
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from chat_server import NUMBER, QUESTIONS, SETTINGS, chat_server, replay
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from hf_elhsr import ElhsrConfig, ElhsrRewardHead, best_of_n_chat
from oracle import oracle_reward

RECORDINGS = Path(__file__).parents[1] / "data" / "llama_cpp_answers.json"


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """The server is local, but the client treats it as the network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def head():
    config = ElhsrConfig(signal="top_log_probabilities", num_log_probabilities=20, layers=[])
    made = ElhsrRewardHead(config)
    with torch.no_grad():
        made.weight.copy_(torch.randn(2, 21, generator=torch.Generator().manual_seed(0)) / 5)
        made.bias.copy_(torch.tensor([0.3, -0.2]))
    return made


def client(url):
    return InferenceClient(base_url=url, api_key="none")


def conversation(question):
    return [{"role": "user", "content": question}]


def oracle(head, choice):
    tokens = choice["logprobs"]["content"]
    features = np.empty((len(tokens), 21))
    for row, token in zip(features, tokens, strict=True):
        top = np.sort([entry["logprob"] for entry in token["top_logprobs"]])[::-1][:20]
        row[:] = top[-1]
        row[: len(top)], row[20] = top, token["logprob"]
    features = np.maximum(features, -50.0)
    return oracle_reward(features, head.weight.detach().numpy(), head.bias.detach().numpy())


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_best_of_the_answers_of_a_real_server(head, question):
    recorded = json.loads(RECORDINGS.read_text())["recordings"]
    own = [r["answer"]["choices"][0] for r in recorded if r["request"]["messages"] == conversation(question)]
    assert len(own) == NUMBER
    with chat_server(replay(RECORDINGS)) as (url, requests):
        out = best_of_n_chat(client(url), conversation(question), NUMBER, head, **SETTINGS)
    expected = [oracle(head, choice) for choice in own]
    assert out.rewards == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert out.texts == [choice["message"]["content"] for choice in own]
    assert out.winner == int(np.argmax(expected))
    assert out.text == out.texts[out.winner]
    assert len(set(out.texts)) > 1
    # llama.cpp returns one answer whatever n is, so requests were repeated, each with a different seed
    assert [request["n"] for _, request in requests] == [4, 3, 2, 1]
    assert [request["seed"] for _, request in requests] == [7, 8, 9, 10]
    assert {path for path, _ in requests} == {"/v1/chat/completions"}


def made_choice(text, logprob, tokens=2, top=20):
    entry = {
        "token": "x",
        "logprob": logprob,
        "top_logprobs": [{"token": "x", "logprob": logprob - i} for i in range(top)],
    }
    return {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": {"content": [entry] * tokens}}


def test_a_server_that_returns_all_answers_at_once_gets_one_request(head):
    choices = [made_choice(f"answer {i}", -0.1 * i) for i in range(5)]
    with chat_server(lambda request: (200, {"choices": choices[: request["n"]]})) as (url, requests):
        out = best_of_n_chat(client(url), conversation("?"), 5, head)
    assert len(requests) == 1
    assert out.rewards == pytest.approx([oracle(head, choice) for choice in choices], rel=1e-4)
    assert requests[0][1]["top_logprobs"] == 20
    assert requests[0][1]["logprobs"] is True


def test_an_answer_of_one_token_may_have_only_merged_log_probabilities(head):
    """llama.cpp's server returned down to 16 of 20; fewer than 15 are too few."""
    choices = [made_choice("Yes", -0.1, tokens=1, top=16), made_choice("No, no", -2.0)]
    with chat_server(lambda request: (200, {"choices": choices})) as (url, _):
        out = best_of_n_chat(client(url), conversation("?"), 2, head)
    assert out.rewards == pytest.approx([oracle(head, choice) for choice in choices], rel=1e-4)
    choices[0] = made_choice("Yes", -0.1, tokens=1, top=14)
    with (
        chat_server(lambda request: (200, {"choices": choices})) as (url, _),
        pytest.raises(ValueError, match="has 14 top_logprobs per token, and this head reads 20"),
    ):
        best_of_n_chat(client(url), conversation("?"), 2, head)


def test_seeds_are_raised_by_the_number_of_answers(head):
    """A server that returns two at a time may make its second answer from the next seed."""
    with chat_server(lambda request: (200, {"choices": [made_choice("a", -0.1)] * min(2, request["n"])})) as (
        url,
        asked,
    ):
        best_of_n_chat(client(url), conversation("?"), 5, head, seed=10)
    assert [request["seed"] for _, request in asked] == [10, 12, 14]


def test_more_answers_than_asked_for_do_not_count(head):
    with chat_server(lambda request: (200, {"choices": [made_choice("a", -0.1)] * 9})) as (url, _):
        assert len(best_of_n_chat(client(url), conversation("?"), 3, head).texts) == 3


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("", 1), (" \n", 1)])
def test_an_empty_answer_cannot_win(head, text, tokens):
    """Servers may return the token that ends the answer, or leave it out."""
    choices = [made_choice(text, 0.0, tokens=tokens), made_choice("b", -3.0)]
    with chat_server(lambda request: (200, {"choices": choices})) as (url, _):
        out = best_of_n_chat(client(url), conversation("?"), 2, head)
    assert out.rewards[0] == -math.inf
    assert (out.winner, out.text) == (1, "b")
    with (
        chat_server(lambda request: (200, {"choices": choices[:1]})) as (url, _),
        pytest.raises(ValueError, match="All 2 answers are empty"),
    ):
        best_of_n_chat(client(url), conversation("?"), 2, head)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], "without any choices"),
        ([{**made_choice("a", -1.0), "logprobs": None}], "request logprobs=true"),
        ([made_choice("a", -1.0, top=5)], "has 5 top_logprobs per token, and this head reads 20"),
        ([made_choice("a", 0.7)], "expected a number of at most 0"),
    ],
)
def test_servers_that_do_not_return_what_is_needed_are_refused(head, choices, message):
    with (
        chat_server(lambda request: (200, {"choices": choices})) as (url, _),
        pytest.raises(ValueError, match=message),
    ):
        best_of_n_chat(client(url), conversation("?"), 1, head)


def test_an_error_of_the_server_is_raised_by_the_client(head):
    with chat_server(lambda request: (500, {"error": "out of memory"})) as (url, _), pytest.raises(HfHubHTTPError):
        best_of_n_chat(client(url), conversation("?"), 1, head)


def test_refusals_before_any_request(head):
    class Unasked:
        def chat_completion(self, *arguments, **kwargs):
            raise AssertionError("the server was asked")

    for n in (0, -1, True, 2.0):
        with pytest.raises(ValueError, match="whole number of at least 1"):
            best_of_n_chat(Unasked(), conversation("?"), n, head)
    with pytest.raises(ValueError, match="logprobs, n: best_of_n_chat sets this itself"):
        best_of_n_chat(Unasked(), conversation("?"), 2, head, n=3, logprobs=True)
    with pytest.raises(ValueError, match="reads 'hidden_states', and an interface returns only log-probabilities"):
        best_of_n_chat(Unasked(), conversation("?"), 2, ElhsrRewardHead(ElhsrConfig(hidden_size=4, layers=[0])))
