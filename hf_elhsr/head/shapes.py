"""Which parameters a head has, by its configuration; and that a file of weights holds these and no others."""

import os
from types import NoneType

from safetensors import SafetensorError, safe_open

from .configuration_elhsr import SIGNALS, ElhsrConfig

# Numbers that h_t can be made of: several times more than any language model has in all its layers
_MOST_FEATURES = 2**24
# What the fields must be that are no numbers and are not checked where they are read
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "gate": ((bool,), "true or false"),
    "value": ((bool,), "true or false"),
    "fingerprint": ((dict, NoneType), "a table or null"),
    "adapter": ((dict, NoneType), "a table or null"),
    "base_model": ((str, NoneType), "text or null"),
    "standardization": ((str, NoneType), "text or null"),
}


def parameter_shapes(config: ElhsrConfig) -> dict[str, tuple[int, ...]]:
    """The head's parameters by name; [`ElhsrRewardHead`] says what they are.

    Raises:
        ValueError: The configuration makes no head: a field is of the wrong type, or h_t has no length, or one that no
            language model has.
    """
    for name, (types, expected) in _TYPES.items():
        if not isinstance(given := getattr(config, name), types):
            raise ValueError(
                f"The head's config has {name}={given!r}, expected {expected}: download or save the head again."
            )
    _check_signal(config)
    features = config.num_features
    if features > _MOST_FEATURES:
        raise ValueError(
            f"This configuration asks for {features:,} numbers of every token, and no language model has more than "
            f"{_MOST_FEATURES:,}: its config.json is damaged or made to harm."
        )
    rows = 2 if config.gate else 1
    shapes: dict[str, tuple[int, ...]] = {"weight": (rows, features), "bias": (rows,)}
    return shapes | ({"value_weight": (1, features), "value_bias": (1,)} if config.value else {})


def check_weights(file: str | os.PathLike[str], config: ElhsrConfig) -> None:
    """Refuse a safetensors file that does not hold the parameters of this configuration. Only its header is read.

    Raises:
        ValueError: The file is damaged or no safetensors, or names and shapes are not those of the head.
    """
    expected = parameter_shapes(config)
    try:
        with safe_open(file, framework="pt") as opened:
            found = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{os.fspath(file)!r} cannot be read: it is damaged, or no safetensors file ({error}). Download or save "
            "the head again."
        ) from error
    if found != expected:
        raise ValueError(
            f"The weights in {os.fspath(file)!r} are not those of a reward head with its config.json: expected "
            f"{expected}, got {found}."
        )


def _check_signal(config: ElhsrConfig) -> None:
    """Refuse a configuration whose h_t has no length."""
    if config.signal not in SIGNALS:
        raise ValueError(f"Unknown signal {config.signal!r}: this version reads {', '.join(SIGNALS)}.")
    if config.signal == "hidden_states":
        numbers = [config.hidden_size, *config.layers]
        if (
            any(isinstance(number, bool) or not isinstance(number, int) for number in numbers)
            or config.num_features <= 0
            or config.layers != sorted(set(config.layers))
            or config.layers[0] < 0
        ):
            raise ValueError(
                f"hidden_size={config.hidden_size} and layers={config.layers} make no reward head: give a positive "
                "width and ascending, distinct, non-negative layers. ElhsrConfig.for_model(model) fills them in."
            )
        return
    name = "base_vocab_size" if config.signal == "logits" else "num_log_probabilities"
    size = getattr(config, name)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1 or config.layers:
        raise ValueError(
            f"A head that reads {config.signal!r} needs {name} of at least 1 and no layers, got {name}={size!r} and "
            f"layers={config.layers}. ElhsrConfig.for_model(model, signal={config.signal!r}) fills them in."
        )
