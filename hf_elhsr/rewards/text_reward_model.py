"""TextRewardModel: scores from a second model that reads the text, to be combined with a head's rewards."""

from collections.abc import Callable
from typing import Any

import torch

from .._checks import whole_number


class TextRewardModel:
    """A sequence classifier with one label (its logit is the score) or two (the log-odds of the second).

    Args:
        model: From `AutoModelForSequenceClassification`.
        tokenizer: Its tokenizer, which may differ from the language model's.
        batch_size: Texts per forward pass. Scores do not depend on it, except for rounding.
        format: Makes the text from a prompt and a completion. Default: one after the other, which suits a classifier
            that knows the language model's chat markers.

    Raises:
        ValueError: The model is not such a classifier, or it and the tokenizer do not agree on a padding token, which
            batches need.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        batch_size: int = 8,
        format: Callable[[str, str], str] | None = None,
    ):
        labels = getattr(model.config, "num_labels", None)
        if labels not in (1, 2) or "SequenceClassification" not in type(model).__name__:
            raise ValueError(
                f"A text reward model is a sequence classifier with one or two labels; got a {type(model).__name__} "
                f"with {labels}: load it with AutoModelForSequenceClassification."
            )
        whole_number("batch_size", batch_size)
        pads = (tokenizer.pad_token_id, model.config.pad_token_id)
        if batch_size > 1 and (None in pads or pads[0] != pads[1]):
            # The classifier finds a text's last token by its padding
            raise ValueError(
                f"Batches need a padding token that tokenizer and model agree on; tokenizer.pad_token_id={pads[0]} and "
                f"model.config.pad_token_id={pads[1]}: set tokenizer.pad_token and model.config.pad_token_id, or "
                "batch_size=1."
            )
        self._model, self._tokenizer, self._batch_size, self._format = model.eval(), tokenizer, batch_size, format

    @torch.no_grad()
    def __call__(self, prompts: list[str], completions: list[str]) -> torch.Tensor:
        """(completions,) float32 scores, on the CPU.

        Raises:
            ValueError: A text longer than the model's context.
        """
        join = self._format or (lambda prompt, completion: prompt + completion)
        texts = [join(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        scores = [self._score(texts[i : i + self._batch_size]) for i in range(0, len(texts), self._batch_size)]
        return torch.cat(scores) if scores else torch.empty(0)

    def _score(self, texts: list[str]) -> torch.Tensor:
        # A decoded prompt may already begin with the BOS token
        bos = self._tokenizer.bos_token
        begun = [bos is not None and text.startswith(bos) for text in texts]
        ids = [self._tokenizer(t, add_special_tokens=not b)["input_ids"] for t, b in zip(texts, begun, strict=True)]
        encoded = self._tokenizer.pad(
            {"input_ids": ids}, padding=len(ids) > 1, padding_side="right", return_tensors="pt"
        )
        length, context = encoded["input_ids"].shape[1], getattr(self._model.config, "max_position_embeddings", None)
        if context is not None and length > context:
            raise ValueError(
                f"A text is {length} tokens long and the text reward model's context holds {context}: shorten the text "
                "with `format`, or lower max_new_tokens."
            )
        logits = self._model(**encoded.to(self._model.device)).logits.float().cpu()
        return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
