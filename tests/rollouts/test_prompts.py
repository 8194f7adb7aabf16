"""Questions as prompts: in the chat template where there is one, and bare where there is none."""

import pytest
import torch
from tiny_tokenizer import tiny_tokenizer

from hf_elhsr import enable_best_of_n
from hf_elhsr.rollouts import encode_prompts
from tiny_models import tiny_head, tiny_model

TEMPLATE = (
    "{% for message in messages %}w9 {{ message['content'] }} <eos>{% endfor %}"
    "{% if add_generation_prompt %} w7{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [(None, [[0, 5], [5, 6]]), (TEMPLATE, [[0, 9, 5, 2, 7], [9, 5, 6, 2, 7]])],
    ids=["bare", "chat"],
)
def test_questions(template, expected):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    inputs = encode_prompts(tokenizer, ["w5", "w5 w6"])
    assert inputs["input_ids"].tolist() == expected
    assert torch.equal(inputs["attention_mask"], (inputs["input_ids"] != 0).long())
    model = enable_best_of_n(tiny_model())
    out = model.generate(**inputs, best_of_n=2, reward_head=tiny_head(model), max_new_tokens=3)
    assert torch.equal(out[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])


def test_a_tokenizer_without_padding_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match=r"set tokenizer.pad_token"):
        encode_prompts(tokenizer, ["w5"])
