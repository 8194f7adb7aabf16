"""pipeline("text-generation") with best_of_n: it returns what generate selects, for every form of input."""

import pytest
import torch
from tiny_tokenizer import tiny_tokenizer
from transformers import pipeline

TEXTS = ["w5 w6 w9", "w8"]
CHATS = [[{"role": "user", "content": text}] for text in TEXTS]
TEMPLATE = "{% for message in messages %}{{ message['content'] }} w4 {% endfor %}w7"


@pytest.fixture(autouse=True)
def seeded(model):
    """The same random numbers for every prefill; the pipeline draws some for itself before."""

    def seed(module, args, kwargs):
        if kwargs["input_ids"].shape[1] > 1:
            torch.manual_seed(0)

    model.register_forward_pre_hook(seed, with_kwargs=True)


@pytest.fixture
def tokenizer():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.padding_side = "left"
    return tokenizer


@pytest.fixture
def arguments(head):
    # The pipeline would set its own temperature
    return {"best_of_n": 4, "reward_head": head, "max_new_tokens": 6, "do_sample": True, "temperature": 0.9}


def encode(tokenizer, prompts):
    if isinstance(prompts[0], str):
        return tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
    return tokenizer.apply_chat_template(
        prompts, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
    )


def generated(model, tokenizer, prompts, **arguments):
    inputs = encode(tokenizer, prompts)
    sequences = model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], **arguments)
    new = sequences[:, inputs["input_ids"].shape[1] :]
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in new]


def completions(records):
    """The new texts, flat, of what a pipeline returned with return_full_text=False."""
    if isinstance(records, dict):
        return [records["generated_text"]]
    return [text for record in records for text in completions(record)]


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("prompts", [TEXTS, CHATS], ids=["text", "chat"])
def test_batched(model, tokenizer, arguments, prompts, k):
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
    records = pipe(prompts, batch_size=2, return_full_text=False, num_return_sequences=k, **arguments)
    assert [len(record) for record in records] == [k, k]
    assert completions(records) == generated(model, tokenizer, prompts, num_return_sequences=k, **arguments)


@pytest.mark.parametrize("prompt", [TEXTS[0], CHATS[0]], ids=["text", "chat"])
def test_single_with_its_prompt_and_without(model, tokenizer, arguments, prompt):
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
    [expected] = generated(model, tokenizer, [prompt], **arguments)
    texts = []
    for return_full_text in (True, False):
        [record] = pipe(prompt, return_full_text=return_full_text, **arguments)
        texts.append(record["generated_text"])
    if isinstance(prompt, str):
        assert texts == [prompt + expected, expected]
    else:
        assert texts == [[*prompt, {"role": "assistant", "content": expected}], expected]


def test_arguments_of_the_pipeline_itself(model, tokenizer, arguments):
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer, **arguments)
    assert completions(pipe(TEXTS[0], return_full_text=False)) == generated(model, tokenizer, TEXTS[:1], **arguments)


def test_best_of_n_of_the_models_generation_config(model, tokenizer, arguments, head, tmp_path):
    head.save_pretrained(tmp_path)
    expected = generated(model, tokenizer, TEXTS[:1], **arguments)
    model.generation_config.update(**arguments | {"reward_head": str(tmp_path)})
    model.generation_config.best_of_n, model.generation_config.reward_head = 4, str(tmp_path)
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
    assert completions(pipe(TEXTS[0], return_full_text=False)) == expected


def test_rewards_of_the_candidates_in_the_records(model, tokenizer, arguments):
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
    records = pipe(TEXTS, batch_size=2, return_full_text=False, return_dict_in_generate=True, **arguments)
    for [record] in records:
        [winner] = record["winners"]
        assert winner == max(range(4), key=record["rewards"].__getitem__)
        text = tokenizer.decode(record["candidates"][winner][3:], skip_special_tokens=True)
        assert record["generated_text"] == text


def test_refusals_reach_the_caller(model, tokenizer, arguments):
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="makes all 4 candidates the same"):
        pipe(TEXTS[0], **arguments | {"do_sample": False})
    with pytest.raises(ValueError, match="num_return_sequences=5 is more than the best_of_n=4"):
        pipe(TEXTS[0], num_return_sequences=5, **arguments)
