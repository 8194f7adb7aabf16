"""Every value in a head's config.json, replaced by one of another type or size, is refused in one clear line.

Or the head that is loaded works: some values may be anything that they are replaced by, such as a name.
"""

import copy
import json
from collections.abc import Iterator

import pytest
import torch

from hf_elhsr import ElhsrRewardHead, enable_best_of_n
from tiny_models import ragged_prompts, tiny_head, tiny_model

DECISIONS = {
    "calibration": {"slope": 1.0, "offset": 0.0, "winner": {"slope": 0.9, "offset": -0.1}, "n": 4, "prompts": 400},
    "pruning": {
        "interval": 2,
        "prefix": [[0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.5, 0.6]],
        "final": [0.0, 1.0],
        "value": [[0.0, 1.0, -1.0, 0.0, 0.0]] * 2,
        "prices": {"0.01": 0.005, "0.1": 0.6},
        "n": 4,
        "prompts": 400,
    },
    "adaptive": {"wave": 2, "thresholds": {"0.1": 0.5}, "prices": {"0.1": 0.002}, "n": 4, "prompts": 400},
}
OTHERS = [
    None,
    True,
    -1,
    0,
    3,
    2.5,
    1e300,
    10**400,
    float("nan"),
    float("inf"),
    "x",
    "7" * 3000,
    [],
    [1],
    [[0.1, 0.2]],
    [[0.1, 0.2, 0.3, 0.4], [0.1, 0.2]],
    ["x"] * 3000,
    {},
    {"a": 1},
    {"0.01": "0.5"},
]


def places(value, path=()) -> Iterator[tuple]:
    if path:
        yield path
    if isinstance(value, dict | list) and len(value) < 50:
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def replaced(config, path, other):
    changed = copy.deepcopy(config)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = other
    return changed


@pytest.fixture(scope="module")
def model():
    return enable_best_of_n(tiny_model())


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    head = tiny_head(model)
    for name, fields in DECISIONS.items():
        setattr(head.config, name, fields)
    folder = tmp_path_factory.mktemp("head")
    head.save_pretrained(folder)
    return folder, json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("section", ["calibration", "pruning", "adaptive", "the rest"])
def test_a_replaced_value_is_refused_or_harmless(model, saved, section):
    folder, config = saved
    inside = [path for path in places(config) if (path[0] if path[0] in DECISIONS else "the rest") == section]
    assert len(inside) >= 8
    refused = 0
    for number, path in enumerate(inside):
        for other in OTHERS[number % 4 :: 4]:
            (folder / "config.json").write_text(json.dumps(replaced(config, path, other)))
            try:
                head = ElhsrRewardHead.from_pretrained(folder)
                use(model, head)
            except ValueError as error:
                said = str(error)
                assert len(said) <= 800, path
                assert "\n" not in said, (path, said)
                refused += 1
            except Exception as error:
                raise AssertionError(f"{path} = {str(other)[:40]}: {type(error).__name__}: {error}") from error
    assert refused > len(inside) * len(OTHERS) // 4 // 2


def use(model, head):
    arguments = {"best_of_n": 4, "reward_head": head, "max_new_tokens": 3, "return_dict_in_generate": True}
    for decision in ({"prune": 0.1, "min_confidence": 0.5}, {"adaptive": 0.1}):
        out = model.generate(**ragged_prompts(1), **arguments, **decision)
        assert bool(torch.isfinite(out.rewards[out.lengths > 0]).all())
        assert out.confidence is None or bool(torch.isfinite(out.confidence).all())
