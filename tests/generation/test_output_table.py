"""The table that a notebook displays for `out`."""

import re

import torch

from hf_elhsr import BestOfNOutput


def rows(html):
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)]


def made(**changes):
    fields = {
        "sequences": torch.zeros(2, 5, dtype=torch.long),
        "rewards": torch.tensor([[-1.0, 2.0, 9.0, -torch.inf], [0.5, 0.25, 0.0, -0.5]]),
        "candidates": torch.zeros(2, 4, 5, dtype=torch.long),
        "lengths": torch.tensor([[3, 3, 2, 0], [1, 2, 3, 3]]),
        "pruned": torch.tensor([[False, False, True, False], [False] * 4]),
        "winners": torch.tensor([[1], [0]]),
    }
    return BestOfNOutput(**(fields | changes))


def test_best_first_with_marks():
    html = made(confidence=torch.tensor([0.75, 0.5]))._repr_html_()
    first, second = html.split("<caption>")[1:]
    assert first.startswith("Prompt 0, confidence 75.0%<")
    assert rows(first)[1:] == [
        ["1", "+2.000", "3", "winner"],
        ["0", "-1.000", "3", ""],
        ["2", "+9.000", "2", "pruned"],
        ["3", "", "0", "never sampled"],
    ]
    assert [row[0] for row in rows(second)[1:]] == ["0", "1", "2", "3"]


def test_many_are_summed_up():
    many = 20
    html = made(
        rewards=torch.zeros(many, 40),
        lengths=torch.ones(many, 40, dtype=torch.long),
        pruned=torch.zeros(many, 40, dtype=torch.bool),
        winners=torch.full((many, 2), 7) - torch.arange(2),
    )._repr_html_()
    assert html.count("<table>") == 8
    assert "And 12 more prompts." in html
    assert html.count("And 8 more candidates.") == 8
    # Returned candidates come first, although votes made others equal
    assert [row[0] for row in rows(html.split("<caption>")[1])[1:4]] == ["7", "6", "0"]
    assert [row[3] for row in rows(html.split("<caption>")[1])[1:4]] == ["winner", "returned", ""]


def test_an_incomplete_output_is_shown_as_plain_text():
    assert made(rewards=None)._repr_html_() is None


def test_a_real_one(model, head, inputs):
    torch.manual_seed(0)
    out = model.generate(**inputs, best_of_n=3, reward_head=head, max_new_tokens=4, return_dict_in_generate=True)
    tables = out._repr_html_().split("<caption>")[1:]
    assert [int(rows(table)[1][0]) for table in tables] == out.winners[:, 0].tolist()
