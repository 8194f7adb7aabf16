# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/enable.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""enable_best_of_n: gives a loaded model the mixin, and takes it back; or for one call, without touching the model."""

import functools
from typing import Any

from .configuration_elhsr import unwrap_language_model
from .generation_mixin import BestOfNGenerationMixin
from .generation_saved_settings import restore_dropped
from .generation_validation import check_model


def enable_best_of_n(model: Any) -> Any:
    """Let `model.generate` take `best_of_n` and `reward_head`.

    The model's class is replaced by one with [`BestOfNGenerationMixin`] in front, of the same name, so that saved
    configurations, pickles and copies are those of the original class. Nothing else about the model changes. Of a
    PEFT or `torch.compile` wrapper the model inside is enabled. Calling it again does nothing. What the model's
    generation_config.json says about best-of-n holds from then on.

    A model that has returned hidden states, by best-of-n or otherwise, can no longer be pickled: transformers keeps
    capture hooks on it that pickle refuses. `save_pretrained` and `copy.deepcopy` work as ever.

    Returns:
        The same object that was passed in.

    Raises:
        ValueError: A model that best-of-n cannot decode, with the reason.
    """
    language_model: Any = unwrap_language_model(model)
    check_model(language_model)
    if not isinstance(language_model, BestOfNGenerationMixin):
        original: Any = type(language_model)
        language_model.__class__ = _best_of_n_class(original)
        restore_dropped(language_model)
    return model


def disable_best_of_n(model: Any) -> Any:
    """Undo [`enable_best_of_n`]: the model gets its own class back. Returns the same object."""
    language_model = unwrap_language_model(model)
    original = vars(type(language_model)).get("_original_class")
    if original is not None:
        language_model.__class__ = original
    return model


def best_of_n_view(model: Any) -> Any:
    """The same model seen through a class that has the mixin; the model in hand keeps its own class.

    The two share their attributes: what one is given, the other has. So nothing is loaded or copied, and whoever else
    uses the model meanwhile, in another thread, finds it as it was.

    Raises:
        ValueError: A model that best-of-n cannot decode, with the reason.
    """
    check_model(model)
    original: Any = type(model)
    cls = _best_of_n_class(original)
    view = cls.__new__(cls)
    object.__setattr__(view, "__dict__", vars(model))
    return view


@functools.cache
def _best_of_n_class(original: Any) -> Any:
    def reduce(self: Any, protocol: Any) -> tuple[Any, ...]:
        # This class cannot be found by its name, where the original is; so pickles and copies go through it
        return _empty_instance, (original,), self.__getstate__()

    return type(
        original.__name__,
        (BestOfNGenerationMixin, original),
        {
            "__module__": original.__module__,
            "__qualname__": original.__qualname__,
            "__doc__": original.__doc__,
            "__reduce_ex__": reduce,
            "_original_class": original,
        },
    )


def _empty_instance(original: Any) -> Any:
    cls = _best_of_n_class(original)
    return cls.__new__(cls)
