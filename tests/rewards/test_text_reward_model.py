"""A text reward model: scores do not depend on the batch, and equal those of one text at a time."""

import pytest
import torch
import transformers as tf
from tiny_tokenizer import tiny_tokenizer
from tokenizers import processors

from hf_elhsr import TextRewardModel
from tiny_models import CONFIGS, tiny_classifier

PROMPTS = ["w5 w6 w7", "w5 w6 w7", "w9", "w8 w10", "w11"]
COMPLETIONS = ["w20 w21", "w22", "w23 w24 w25 w26 w27", "w30", "w31 w32 w33"]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("labels", [1, 2])
def test_scores_equal_those_of_one_text_at_a_time(architecture, labels):
    model = tiny_classifier(architecture, labels)
    tokenizer = tiny_tokenizer()
    expected = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        ids = torch.tensor([[int(word[1:]) for word in f"{prompt} {completion}".split()]])
        with torch.no_grad():
            logits = model.eval()(ids).logits[0]
        expected.append(float(logits[0] if labels == 1 else logits[1] - logits[0]))
    assert max(expected) - min(expected) > 0.05
    for batch_size in (1, 2, 5):
        scorer = TextRewardModel(model, tokenizer, batch_size, format=lambda p, c: f"{p} {c}")
        assert scorer(PROMPTS, COMPLETIONS).tolist() == pytest.approx(expected, abs=1e-4)
    assert TextRewardModel(model, tokenizer)([], []).shape == (0,)


def test_by_default_the_completion_follows_the_prompt():
    model, tokenizer = tiny_classifier(), tiny_tokenizer()
    plain = TextRewardModel(model, tokenizer)(["w5 w6 "], ["w20"])
    assert plain == TextRewardModel(model, tokenizer, format=lambda p, c: "w5 w6 w20")(["x"], ["y"])


def test_a_prompt_with_a_bos_token_does_not_get_a_second_one():
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "w6"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="w6 $A", special_tokens=[("w6", 6)]
    )
    assert tokenizer("w7 w20")["input_ids"] == [6, 7, 20]
    scorer = TextRewardModel(tiny_classifier(), tokenizer)
    with_it, without_it = (scorer([prompt], ["w20"]).item() for prompt in ("w6 w7 ", "w7 "))
    assert with_it == without_it
    both = scorer(["w6 w7 ", "w7 "], ["w20", "w20"]).tolist()
    assert both == pytest.approx([with_it, with_it], abs=1e-5)


def test_classifiers_texts_and_padding_that_cannot_work_are_refused():
    tokenizer = tiny_tokenizer()
    with pytest.raises(ValueError, match="one or two labels; got a LlamaForSequenceClassification with 3"):
        TextRewardModel(tiny_classifier(labels=3), tokenizer)
    with pytest.raises(ValueError, match="got a LlamaForCausalLM"):
        TextRewardModel(tf.AutoModelForCausalLM.from_config(CONFIGS["llama"]()), tokenizer)
    with pytest.raises(ValueError, match="batch_size=0"):
        TextRewardModel(tiny_classifier(), tokenizer, 0)
    with pytest.raises(ValueError, match="130 tokens long and the text reward model's context holds 128"):
        TextRewardModel(tiny_classifier(), tokenizer)(["w5 " * 129], ["w6"])
    with pytest.raises(ValueError, match=r"tokenizer.pad_token_id=0 and model.config.pad_token_id=7"):
        TextRewardModel(tiny_classifier(pad_token_id=7), tokenizer)
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="need a padding token"):
        TextRewardModel(tiny_classifier(), tokenizer)
    TextRewardModel(tiny_classifier(), tokenizer, batch_size=1)
