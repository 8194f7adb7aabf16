"""A tokenizer of 64 words: w5 is token 5, and so on."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def tiny_tokenizer():
    special = ["<pad>", "<unk>", "<eos>"]
    words = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(3, 64))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict(zip(("pad_token", "unk_token", "eos_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
