"""Random calls of generate end in rewards that equal the oracle's, or in an error that names what is wrong."""

import pytest
from architectures import ARCHITECTURES
from calls import random_call
from judging import judge

CALLS = 60


def test_there_are_sixty_architectures():
    assert len(ARCHITECTURES) >= 60


@pytest.mark.parametrize("first", range(0, 4 * CALLS, CALLS))
def test_calls_end_as_they_may(first):
    outcomes = [judge(random_call(seed)) for seed in range(first, first + CALLS)]
    equal = sum(outcome == "result, equal to the oracle" for outcome in outcomes)
    # Otherwise little would be tested
    assert equal >= CALLS // 3
    assert sum(outcome.startswith("refused") for outcome in outcomes) >= CALLS // 10
