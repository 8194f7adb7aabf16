"""Random calls of `generate(best_of_n=)`: arguments that fit together, and now and then one that is nonsense."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from architectures import ARCHITECTURES, VOCABULARY
from tiny_tokenizer import tiny_tokenizer
from transformers import LogitsProcessor, StoppingCriteria

from hf_elhsr import SignalProcessor

#: What best-of-n adds to generate.
OWN = (
    "best_of_n",
    "reward_head",
    "combine",
    "extract_answer",
    "signal_processor",
    "output_token_rewards",
    "prune",
    "adaptive",
    "min_confidence",
    "max_parallel",
)
_TOKENIZER = tiny_tokenizer()


class OwnProcessor(LogitsProcessor):
    """A user's processor, which may keep state per row as far as the loop knows."""

    def __call__(self, input_ids, scores):
        return scores.index_fill(1, torch.tensor([7, 8]), -torch.inf)


class OwnCriterion(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return input_ids[:, -1] % 9 == 0


class CountsTokens(SignalProcessor):
    def begin(self, num_candidates, device):
        self.lengths = torch.zeros(num_candidates, dtype=torch.long, device=device)

    def __call__(self, input_ids, signal):
        self.lengths[signal.candidates] += signal.active

    def candidates_multiplied(self, index):
        self.lengths = self.lengths[index]


class Puts:
    """A streamer."""

    def put(self, value):
        self.last = value

    def end(self):
        self.ended = True


class Unprintable:
    def __repr__(self):
        raise ValueError("no representation")


#: Values of types and sizes that no argument expects. Functions make them, since some can be used once only.
NONSENSE: dict[str, Any] = {
    "text": lambda: "x",
    "empty text": lambda: "",
    "long text": lambda: "9" * 50_000,
    "bytes": lambda: b"1",
    "true": lambda: True,
    "minus one": lambda: -1,
    "zero": lambda: 0,
    "a fraction": lambda: 0.37,
    "two": lambda: 2.0,
    "nan": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "2^40": lambda: 2**40,
    "10^400": lambda: 10**400,
    "10^5000": lambda: 10**5000,
    "empty list": lambda: [],
    "list": lambda: [1, "a"],
    "list of none": lambda: [None],
    "nested": lambda: [[[0.5] * 900] * 900],
    "dict": lambda: {"a": 1},
    "set": lambda: {1},
    "object": object,
    "a class": lambda: dict,
    "a function": lambda: lambda *args, **kwargs: None,
    "a generator": lambda: (i for i in range(2)),
    "complex": lambda: 1 + 2j,
    "array": lambda: np.array([0.1, 0.2]),
    "array of no dimension": lambda: np.array(0.2),
    "numpy int": lambda: np.int64(2),
    "numpy float": lambda: np.float32(0.2),
    "numpy false": lambda: np.bool_(False),
    "tensor": lambda: torch.tensor([0.1, 0.2]),
    "tensor of no dimension": lambda: torch.tensor(2),
    "unprintable": Unprintable,
}

#: Arguments of transformers' own that are now and then given nonsense, too.
THEIRS = (
    "max_new_tokens",
    "num_return_sequences",
    "temperature",
    "top_p",
    "top_k",
    "use_cache",
    "pad_token_id",
    "eos_token_id",
    "attention_mask",
    "logits_processor",
    "stopping_criteria",
    "streamer",
    "tokenizer",
    "generation_config",
    "past_key_values",
    "do_sample",
    "output_scores",
    "output_hidden_states",
    "return_dict_in_generate",
    "input_ids",
)


@dataclass
class Call:
    """One call of `generate`.

    Args:
        own: The arguments that best-of-n adds, but for `reward_head`.
        source: What `reward_head` is: "head", "heads", "scorer" or "both".
        cache: Whether an empty cache is passed along.
        nonsense: By the argument, the name of the nonsense that it is given.
    """

    seed: int
    architecture: str
    dtype: str
    attention: str | None
    cache: bool
    source: str
    inputs: dict[str, Any]
    side: str
    own: dict[str, Any]
    settings: dict[str, Any]
    nonsense: dict[str, str]

    def __str__(self) -> str:
        plain = bool | int | float | str | list | None
        shown = {name: v if isinstance(v, plain) else type(v).__name__ for name, v in self.settings.items()}
        shown |= {"past_key_values": "empty"} if self.cache else {}
        return (
            f"seed {self.seed}: {self.architecture} {self.dtype} {self.attention or ''} {self.source}, prompts "
            f"{tuple(self.inputs['input_ids'].shape)} {self.side}, {self.own} {shown} nonsense {self.nonsense}"
        )


def random_call(seed: int) -> Call:
    """The same call for the same seed."""
    rng = random.Random(seed)
    architecture = rng.choice(ARCHITECTURES)
    n = rng.choice((1, 2, 2, 3, 4, 5))
    settings: dict[str, Any] = {"max_new_tokens": rng.choice((1, 2, 3, 5, 8)), "return_dict_in_generate": True}
    own: dict[str, Any] = {"best_of_n": n}
    for chance, argument in _OWN_ARGUMENTS:
        if rng.random() < chance:
            own |= argument(rng)
    for chance, argument in _SETTINGS:
        if rng.random() < chance:
            settings |= argument(rng)
    if rng.random() < 0.2:
        settings["num_return_sequences"] = rng.randint(1, n)
    nonsense = {}
    if rng.random() < 0.25:
        for _ in range(rng.choice((1, 1, 2))):
            nonsense[rng.choice((*OWN, *OWN, *THEIRS))] = rng.choice(list(NONSENSE))
        if nonsense.get("max_new_tokens") == "2^40":
            # transformers would go on for as long
            del nonsense["max_new_tokens"]
    inputs, side = _inputs(rng)
    return Call(
        seed=seed,
        architecture=architecture,
        dtype="bfloat16" if rng.random() < 0.08 else "float32",
        attention=rng.choice((None, None, None, "eager", "sdpa")),
        cache=rng.random() < 0.08,
        source=_source(rng, own.get("combine")),
        inputs=inputs,
        side=side,
        own=own,
        settings=settings,
        nonsense=nonsense,
    )


def _source(rng: random.Random, combine: str | None) -> str:
    if rng.random() < 0.15:
        return rng.choice(("head", "heads", "scorer", "both"))
    return "head" if combine is None or "vote" in combine else "heads"


def _inputs(rng: random.Random) -> tuple[dict[str, torch.Tensor], str]:
    batch, length = rng.choice((1, 1, 2, 3)), rng.choice((1, 2, 4, 7, 9))
    if rng.random() < 0.03:
        length = rng.choice((0, 55, 60, 61, 62, 63, 64, 70))
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    ids = torch.randint(5, VOCABULARY, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    side = rng.choice((*["left"] * 6, "right", *["none"] * 5))
    for row in range(1, batch):
        padding = rng.randint(0, length if rng.random() < 0.1 else max(0, length - 1))
        if side == "left":
            ids[row, :padding], mask[row, :padding] = 0, 0
        elif side == "right" and padding:
            ids[row, -padding:], mask[row, -padding:] = 0, 0
    inputs = {"input_ids": ids}
    if side != "none" or rng.random() < 0.5:
        inputs["attention_mask"] = mask.bool() if rng.random() < 0.05 else mask
    return inputs, side


_OWN_ARGUMENTS = (
    (0.2, lambda rng: {"max_parallel": rng.randint(1, 6)}),
    (0.1, lambda rng: {"prune": rng.choice((0.01, 0.1, 0.5))}),
    (0.1, lambda rng: {"adaptive": rng.choice((0.01, 0.1, 0.5))}),
    (0.1, lambda rng: {"min_confidence": rng.choice((0, 0.5, 1))}),
    (0.1, lambda rng: {"output_token_rewards": True}),
    (0.1, lambda rng: {"signal_processor": [CountsTokens()]}),
    (0.05, lambda rng: {"combine": "majority_vote", "extract_answer": lambda text: text[:3]}),
    (0.05, lambda rng: {"combine": rng.choice(("min_max", "worse_of_ranks", "weighted_vote", "no such"))}),
)

_SETTINGS = (
    (0.3, lambda rng: {"temperature": rng.choice((0.1, 0.7, 1.5))}),
    (0.3, lambda rng: {"top_k": rng.choice((0, 1, 5, 500))}),
    (0.3, lambda rng: {"top_p": rng.choice((0.1, 0.9, 1.0))}),
    (0.1, lambda rng: {"min_p": 0.1}),
    (0.1, lambda rng: {"repetition_penalty": rng.choice((0.5, 1.3))}),
    (0.1, lambda rng: {"no_repeat_ngram_size": 2}),
    (0.05, lambda rng: {"bad_words_ids": [[5], [6, 7]]}),
    (0.05, lambda rng: {"suppress_tokens": [2, 3]}),
    (0.05, lambda rng: {"min_new_tokens": 2}),
    (0.05, lambda rng: {"logits_processor": [OwnProcessor()]}),
    (0.05, lambda rng: {"stopping_criteria": [OwnCriterion()]}),
    (0.05, lambda rng: {"prefix_allowed_tokens_fn": lambda batch, ids: [5, 6, 9, 10]}),
    (0.05, lambda rng: {"guidance_scale": 1.5}),
    (0.05, lambda rng: {"stop_strings": ["w9", "w12"]}),
    (0.2, lambda rng: {"tokenizer": _TOKENIZER}),
    (0.1, lambda rng: {"eos_token_id": rng.choice((5, [2, 9], None, 63))}),
    (0.05, lambda rng: {"pad_token_id": None}),
    (0.15, lambda rng: {"use_cache": rng.choice((True, False, 0, 1, np.bool_(False), np.bool_(True)))}),
    (0.06, lambda rng: {"cache_implementation": rng.choice(("static", "dynamic", "quantized", "paged", "no such"))}),
    (0.05, lambda rng: {"prefill_chunk_size": 2}),
    (0.1, lambda rng: {"do_sample": rng.choice((True, True, False))}),
    (0.1, lambda rng: {"output_scores": True}),
    (0.1, lambda rng: {"output_logits": True}),
    (0.1, lambda rng: {"output_hidden_states": True}),
    (0.1, lambda rng: {"return_dict_in_generate": False}),
    (0.05, lambda rng: {"streamer": Puts()}),
    (0.03, lambda rng: {"num_beams": 2}),
    (0.03, lambda rng: {"max_time": 100.0}),
    (0.03, lambda rng: {"max_new_tokens": 70}),
    (0.03, lambda rng: {"no_such_argument": 1}),
)
