"""Votes, counted by hand."""

import pytest
import torch

from hf_elhsr.decisions.selection import VOTES, votes_for_answers


def test_candidates_get_the_votes_of_all_candidates_with_their_answer():
    votes = torch.tensor([[1.0, 2.0, 4.0, 8.0], [1.0, 1.0, 1.0, 1.0]])
    answers = [["7", "3", "7", None], [None, None, None, None]]
    assert votes_for_answers(votes, answers).tolist() == [[5.0, 2.0, 5.0, 0.0], [0.0] * 4]


def test_equal_answers_have_equal_votes_to_the_bit():
    votes = torch.rand(1, 64, generator=torch.Generator().manual_seed(0))
    totals = votes_for_answers(votes, [["a", "b"] * 32])
    assert len(set(totals[0, ::2].tolist())) == len(set(totals[0, 1::2].tolist())) == 1


def test_the_kinds_of_votes():
    rewards = torch.tensor([[-1.0, 0.0, 2.0]])
    assert VOTES["majority_vote"](rewards).tolist() == [[1.0, 1.0, 1.0]]
    assert VOTES["weighted_vote"](rewards)[0].tolist() == pytest.approx([0.26894, 0.5, 0.88080], abs=1e-5)
