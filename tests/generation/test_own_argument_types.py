"""What best-of-n's own arguments cannot be, and what users' functions cannot return: an error names which it was."""

import copy

import numpy as np
import pytest
import torch
from tiny_tokenizer import tiny_tokenizer
from torch import nn

from hf_elhsr import SignalProcessor, enable_best_of_n
from tiny_models import ragged_prompts, tiny_head, tiny_model

DECISIONS = {
    "calibration": {"slope": 1.0, "offset": 0.0, "winner": {"slope": 1.0, "offset": -0.1}, "n": 4, "prompts": 10},
    "pruning": {
        "interval": 2,
        "prefix": [[0.0, 1.0, 0.1, 0.1]] * 3,
        "final": [0.0, 1.0],
        "value": [[-1.0, 1.0, -1.0, 0.1, 0.1]] * 3,
        "prices": {"0.01": 0.05},
        "n": 4,
        "prompts": 10,
    },
    "adaptive": {"wave": 2, "thresholds": {"0.01": 0.9}, "prices": {"0.01": 0.05}, "n": 4, "prompts": 10},
}
# Of no type or size that a number among the arguments can have
NUMBERS = {
    "text": "0.1",
    "long text": "0.1" * 5000,
    "list": [0.1],
    "table": {"a": 1},
    "array": np.array([0.1, 0.2]),
    "tensor": torch.tensor([0.1, 0.2]),
    "complex": 1 + 2j,
    "object": object(),
    "bytes": b"1",
    "NaN": float("nan"),
    "infinity": float("inf"),
    "below": -1,
    "huge": 10**400,
    "of too many digits": 10**5000,
}


@pytest.fixture
def head(model):
    head = tiny_head(model)
    for name, fields in DECISIONS.items():
        setattr(head.config, name, copy.deepcopy(fields))
    return head


@pytest.fixture
def counting(model):
    """The model, and how often it was run."""
    calls = []
    model.register_forward_hook(lambda *args: calls.append(1))
    return calls


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize(
    "name", ["best_of_n", "num_return_sequences", "prune", "adaptive", "min_confidence", "max_parallel"]
)
def test_a_number_of_another_type_or_size(model, head, inputs, counting, name, kind):
    arguments = {"best_of_n": 4, "reward_head": head, "max_new_tokens": 3} | {name: NUMBERS[kind]}
    with pytest.raises(ValueError, match=name) as error:
        model.generate(**inputs, **arguments)
    assert len(str(error.value)) < 600
    assert not counting


@pytest.mark.parametrize("value", ["yes", 0.5, 2, [True], np.array([True, False]), torch.tensor([1.0, 2.0])], ids=str)
def test_a_switch_of_another_type(model, head, inputs, counting, value):
    with pytest.raises(ValueError, match="output_token_rewards="):
        model.generate(**inputs, best_of_n=2, reward_head=head, output_token_rewards=value)
    assert not counting


def test_arrays_without_best_of_n_are_named(model, inputs):
    with pytest.raises(ValueError, match="prune passed without best_of_n"):
        model.generate(**inputs, prune=np.array([0.1, 0.2]))


@pytest.mark.parametrize("value", [3, 10**5000, None, {}, b"head", "x" * 5000, [None], lambda: None], ids=range(8))
def test_a_reward_head_of_another_type(model, inputs, counting, value):
    with pytest.raises(ValueError, match=r"reward_head|tokenizer") as error:
        model.generate(**inputs, best_of_n=2, reward_head=value)
    assert len(str(error.value)) < 600
    assert not counting


@pytest.mark.parametrize(
    "value", [object(), [None], ["text"], [SignalProcessor], "text", 3, {}], ids=lambda value: type(value).__name__
)
def test_signal_processors_of_another_type(model, head, inputs, counting, value):
    with pytest.raises(ValueError, match="signal_processor"):
        model.generate(**inputs, best_of_n=2, reward_head=head, signal_processor=value)
    with pytest.raises(ValueError, match="signal_processor"):
        model.sample_candidates(**inputs, n=2, signal_processor=value)
    assert not counting


@pytest.mark.parametrize("value", ["org/name", b"org/name", 3, object()], ids=lambda value: type(value).__name__)
def test_a_tokenizer_of_another_type(model, head, inputs, counting, value):
    with pytest.raises(ValueError, match="tokenizer="):
        model.generate(
            **inputs, best_of_n=2, reward_head=head, combine="majority_vote", extract_answer=str, tokenizer=value
        )
    assert not counting


@pytest.mark.parametrize(
    "returned",
    [None, "words", ["x", "y"], {"a": 1}, object(), [None], [1 + 2j, 1j], [10**400], [[1.0], [1.0, 2.0]]],
    ids=lambda value: str(value)[:12],
)
def test_what_functions_must_not_return(model, head, returned):
    inputs, tokenizer = ragged_prompts(2), tiny_tokenizer()

    def own_function(*args):
        return returned

    arguments = {"best_of_n": 2, "max_new_tokens": 3, "tokenizer": tokenizer}
    with pytest.raises(ValueError, match=r"own_function returned|own_function was given") as error:
        model.generate(**inputs, **arguments, reward_head=own_function)
    assert len(str(error.value)) < 600
    with pytest.raises(ValueError, match=r"combine returned|combine was given"):
        model.generate(**inputs, **arguments, reward_head=[head, head], combine=own_function)


@pytest.mark.parametrize("returned", [["4"], {}, {4}], ids=str)
def test_what_an_answer_must_not_be(model, head, returned):
    with pytest.raises(ValueError, match=r"extract_answer returned .*: expected the final answer as text"):
        model.generate(
            **ragged_prompts(2),
            best_of_n=2,
            max_new_tokens=3,
            reward_head=head,
            tokenizer=tiny_tokenizer(),
            combine="majority_vote",
            extract_answer=lambda text: returned,
        )


@pytest.mark.parametrize("wrapper", [nn.DataParallel, nn.Sequential])
def test_wrappers_say_what_to_pass(wrapper):
    wrapped = wrapper(tiny_model())
    with pytest.raises(ValueError, match=r"`\.module`" if wrapper is nn.DataParallel else "PreTrainedModel"):
        enable_best_of_n(wrapped)
