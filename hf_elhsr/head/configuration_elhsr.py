"""ElhsrConfig: a reward head's shape, the language model and signal it reads, and the decisions fitted for it."""

from collections.abc import Callable
from types import NoneType
from typing import Any, Self

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from .._checks import is_whole_number, quoted, shortened, whole_number
from ..decisions.adaptive import Adaptive
from ..decisions.calibration import Calibration
from ..decisions.decision import Decision
from ..decisions.pruning import Pruning
from ..transformers_internals import COMMON_CONFIG_FIELDS, commit_hash
from .base_model import (
    FINGERPRINT_TOLERANCE,
    active_adapters,
    adapter_differences,
    adapter_fingerprint,
    fingerprint_differences,
    fingerprint_distance,
    model_fingerprint,
    unwrap_language_model,
)
from .distributions import Logits, TopLogProbabilities
from .hidden_states import HiddenStates
from .signals import SignalReader
from .token_outputs import Aggregation

logger = logging.get_logger(__name__)

#: The signals that h_t can be made of, by the value of `config.signal`.
SIGNALS: dict[str, type[SignalReader]] = {reader.name: reader for reader in (HiddenStates, Logits, TopLogProbabilities)}

#: The decisions that can be fitted for a head and stored in its config, by the name of the field.
DECISIONS: dict[str, type[Decision]] = {decision.name: decision for decision in (Calibration, Pruning, Adaptive)}

#: The format of `config.json` that this version writes. Later versions read it, too, by [`MIGRATIONS`].
FORMAT_VERSION = 1

# The greatest length of h_t: several times more than any language model has in all its layers
_MOST_FEATURES = 2**24
# The types of the fields that are not checked where they are used
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "gate": ((bool,), "true or false"),
    "value": ((bool,), "true or false"),
    "fingerprint": ((dict, NoneType), "a table or null"),
    "adapter": ((dict, NoneType), "a table or null"),
    "base_model": ((str, NoneType), "text or null"),
    "base_model_revision": ((str, NoneType), "text or null"),
    "base_model_type": ((str, NoneType), "text or null"),
    "standardization": ((str, NoneType), "text or null"),
}
_COUNTS = ("base_num_hidden_layers", "base_vocab_size", "num_log_probabilities")


def _from_format_0(config: dict[str, Any]) -> dict[str, Any]:
    """From hf_elhsr 0.1, which had only one type of head and wrote no format."""
    return config | {"head_type": "gated_linear"}


#: The functions that convert a format to the next one, by the format they read.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {0: _from_format_0}


def migrated(config: dict[str, Any]) -> dict[str, Any]:
    """Convert the content of a `config.json` from any earlier format to the current one.

    Raises:
        ValueError: Its format is later than the current one, or invalid.
    """
    version = config.get("format_version", 0)
    if not is_whole_number(version, at_least=0) or version > FORMAT_VERSION:
        raise ValueError(
            f"This reward head was saved with format_version {quoted(version)}, and this version of hf_elhsr reads up "
            f"to {FORMAT_VERSION}: update hf_elhsr, or train the head again with this version (`hf-elhsr train`)."
        )
    for number in range(version, FORMAT_VERSION):
        config = MIGRATIONS[number](config)
    return config | {"format_version": FORMAT_VERSION}


class ElhsrConfig(PreTrainedConfig):
    """Configuration of an [`ElhsrRewardHead`]: the shape of the head and the language model it reads.

    Make one with [`ElhsrConfig.for_model`]; the arguments here are what `config.json` holds.

    Args:
        hidden_size: Width d of the language model's hidden states.
        layers: Which entries of `hidden_states` the head reads, ascending, 0 = embeddings where the model has them.
        gate: Whether tokens are weighted by a learned gate g_t; without it R is the plain mean of r_t.
        value: Whether a further row of weights estimates P(correct) of unfinished completions, see
            [`ElhsrRewardHead`]. Pruning is better with it.
        head_type: "gated_linear", the paper's head, or another name in `HEADS`.
        signal: The signal that h_t is made of, a name in [`SIGNALS`]: "hidden_states" of the layers; "logits", the raw
            logits that token t was sampled from; or "top_log_probabilities", the highest log-probabilities there and
            the token's own.
        num_log_probabilities: k, the number of highest log-probabilities, for "top_log_probabilities" only.
        eps: Floor of the sum of gates, which keeps the reward finite if all gates of a completion vanish.
        standardization: How features were standardised in training: "per_feature" or None. It is folded into the
            weights when the head is saved, so this field is only a record.
        base_model: Id of the language model, e.g. "HuggingFaceTB/SmolLM2-135M-Instruct". Information only.
        base_model_revision: The revision of `base_model` used in training. Information only.
        base_model_type, base_num_hidden_layers, base_vocab_size: Fields of the language model's own config.
        fingerprint: Sampled weights of the language model, see [`model_fingerprint`].
        adapter: Sampled weights of the PEFT adapters that were active on it, see [`adapter_fingerprint`]; None for the
            bare model.
        calibration, pruning, adaptive: A [`Calibration`], a [`Pruning`] and an [`Adaptive`], or their form in
            `config.json`; None if none was fitted. The same holds for any other field of [`DECISIONS`].
        format_version: The format of `config.json`, which is the current one after loading, see [`migrated`].

    Raises:
        ValueError: A decision is damaged or does not fit the head, or an argument is unknown.
    """

    model_type = "elhsr"

    def __init__(
        self,
        hidden_size: int = 0,
        layers: list[int] | None = None,
        gate: bool = True,
        value: bool = False,
        head_type: str = "gated_linear",
        signal: str = "hidden_states",
        num_log_probabilities: int | None = None,
        eps: float = 1e-8,
        standardization: str | None = None,
        base_model: str | None = None,
        base_model_revision: str | None = None,
        base_model_type: str | None = None,
        base_num_hidden_layers: int | None = None,
        base_vocab_size: int | None = None,
        fingerprint: dict[str, Any] | None = None,
        adapter: dict[str, Any] | None = None,
        format_version: int = FORMAT_VERSION,
        **kwargs: Any,
    ):
        self.hidden_size = hidden_size
        self.layers = list(layers) if layers is not None else []
        self.gate = gate
        self.value = value
        self.head_type = head_type
        self.signal = signal
        self.num_log_probabilities = num_log_probabilities
        self.eps = eps
        self.standardization = standardization
        self.base_model = base_model
        self.base_model_revision = base_model_revision
        self.base_model_type = base_model_type
        self.base_num_hidden_layers = base_num_hidden_layers
        self.base_vocab_size = base_vocab_size
        self.fingerprint = fingerprint
        self.adapter = adapter
        self.format_version = format_version
        for name in DECISIONS:
            setattr(self, name, kwargs.pop(name, None))
        if unknown := sorted(kwargs.keys() - COMMON_CONFIG_FIELDS):
            raise ValueError(
                f"A reward head's configuration has no {shortened(', '.join(map(str, unknown)))}: check the spelling, "
                "or update hf_elhsr if a later version made the head."
            )
        # A head has no attention, and transformers would download the code of a kernel named here
        kwargs.pop("attn_implementation", None)
        super().__init__(**kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in DECISIONS and value is not None:
            value = DECISIONS[name].from_config(value)
            value.check_features(self.aggregation.num_prefix_features)
        super().__setattr__(name, value)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a configuration like transformers' `from_dict`, from a `config.json` of any earlier format.

        Raises:
            ValueError: The format is a later one, or the values are invalid.
        """
        try:
            return super().from_dict(migrated(config_dict), **kwargs)
        except ValueError:
            raise
        except Exception as error:  # from values of an incorrect type
            place = f" of {str(kwargs['name_or_path'])!r}" if "name_or_path" in kwargs else ""
            raise ValueError(
                f"The config.json{place} does not describe a reward head ({type(error).__name__}: {error})."
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """The content of `config.json`."""
        output = super().to_dict()
        decisions = {name: getattr(self, name) for name in DECISIONS}
        return output | {name: None if own is None else own.to_dict() for name, own in decisions.items()}

    @property
    def reads(self) -> SignalReader:
        """The reader of the head's signal.

        Raises:
            ValueError: The signal is unknown.
        """
        return signal_class(self.signal)(self)

    @property
    def num_features(self) -> int:
        """Length of h_t: L * d for hidden states, the vocabulary's size for logits, k + 1 for log-probabilities."""
        return self.reads.num_features

    @property
    def aggregation(self) -> Aggregation:
        """The sums over a completion's tokens, and how R follows from them."""
        return Aggregation(self.eps, self.value)

    def fitted(self, name: str) -> Any:
        """A decision of the head, by its field.

        Raises:
            ValueError: It was not fitted; says what to do.
        """
        decision = getattr(self, name)
        if decision is None:
            raise ValueError(DECISIONS[name].missing)
        return decision

    def check(self) -> Self:
        """Check that this configuration describes a head, and return it.

        Raises:
            ValueError: A field has an incorrect type, or h_t has no length, or more numbers than any language model.
        """
        for name, (types, expected) in _TYPES.items():
            if not isinstance(given := getattr(self, name), types):
                raise ValueError(
                    f"The head's config has {name}={quoted(given)}, expected {expected}: download or save the head "
                    "again."
                )
        if not isinstance(self.eps, float) or not 0 < self.eps < 1:
            raise ValueError(f"eps={quoted(self.eps)} is not a small positive number: the paper's is 1e-8.")
        self.reads.check()
        for name in _COUNTS:
            if (count := getattr(self, name)) is not None:
                whole_number(f"The head's config is damaged: {name}", count, at_most=_MOST_FEATURES)
        if self.num_features > _MOST_FEATURES:
            raise ValueError(
                f"This configuration asks for {self.num_features:,} numbers of every token, and no language model has "
                f"more than {_MOST_FEATURES:,}: its config.json is damaged or malicious."
            )
        return self

    @classmethod
    def for_model(cls, model: PreTrainedModel, layers: list[int] | None = None, **kwargs: Any) -> "ElhsrConfig":
        """Make the configuration of a head for this language model; by default with all layers and a gate.

        For hidden states one token is run through the model, which shows their number and width.

        Args:
            model: A decoder-only language model of transformers, also in a PEFT or compiled wrapper.
            layers: Indices into `hidden_states`; negative ones count from the end. Default: all, or none for a signal
                without layers.
            **kwargs: Other arguments of [`ElhsrConfig`].

        Raises:
            ValueError: The signal is unknown, the model does not have a layer, its hidden states are not (batch,
                tokens, width), the signal has no layers, or the vocabulary has too few tokens for the
                log-probabilities.
        """
        model = unwrap_language_model(model)
        text_config = model.config.get_text_config(decoder=True)
        reader = signal_class(kwargs.get("signal", "hidden_states"))
        settings = {
            "base_model": model.config.name_or_path or None,
            "base_model_revision": commit_hash(model.config),
            "base_model_type": text_config.model_type,
            "base_num_hidden_layers": text_config.num_hidden_layers,
            "base_vocab_size": text_config.vocab_size,
            "fingerprint": model_fingerprint(model),
            "adapter": adapter_fingerprint(model),
        }
        return cls(**(settings | kwargs | reader.settings_for(model, layers, kwargs)))

    def check_fits(self, model: PreTrainedModel) -> None:
        """Refuse a language model that this head was not made for.

        Architecture, width and depth must agree, for signals made of distributions also the size of the vocabulary, and
        the model's weights must match the fingerprint within its tolerance. Paths and ids are never compared. Weights
        that cannot be read, since they are packed or offloaded, are not compared, with a warning. A head made for the
        bare model may be used with an adapter, with one warning; a head made with an adapter needs this adapter to be
        active.

        Raises:
            ValueError: The head does not fit; the message names both sides of every difference.
        """
        model = unwrap_language_model(model)
        text_config = model.config.get_text_config(decoder=True)
        found = {
            "model_type": (self.base_model_type, text_config.model_type),
            "hidden size": (self.hidden_size, getattr(text_config, "hidden_size", self.hidden_size)),
            "number of layers": (self.base_num_hidden_layers, text_config.num_hidden_layers),
        }
        if self.reads.depends_on_vocabulary:
            found["vocabulary size"] = (self.base_vocab_size, text_config.vocab_size)
        differences = [
            f"{what} {shortened(str(wanted))} (head) against {given} (model)"
            for what, (wanted, given) in found.items()
            if wanted is not None and wanted != given
        ]
        if not differences and self.fingerprint is not None:
            vocabulary = self.base_vocab_size if self._resized(text_config.vocab_size) else None
            differences = fingerprint_differences(self.fingerprint, model, vocabulary)
        if not differences and self.adapter is not None:
            differences = adapter_differences(self.adapter, model)
        if differences:
            raise ValueError(
                f"This reward head was made for {shortened(self.base_model or 'another model')} and does not fit "
                f"{model.config.name_or_path or type(model).__name__}: {'; '.join(differences)}. "
                "Load the model that the head was made for, or train a head for this model."
            )
        if self.adapter is None and (adapters := active_adapters(model)):
            logger.warning_once(
                f"This reward head was made for {shortened(self.base_model or 'its language model')} without an "
                f"adapter, and {', '.join(map(repr, adapters))} changes the hidden states that it reads: its rewards "
                "may be worse. Train a head with the adapter active."
            )

    def _resized(self, vocab_size: int | None) -> bool:
        """Whether the vocabulary differs in size only, as with a padding row more; hidden states are the same."""
        return self.base_vocab_size not in (None, vocab_size) and not self.reads.depends_on_vocabulary

    def columns_in(self, recorded: "ElhsrConfig") -> list[slice]:
        """The columns of recorded features that make up this head's h_t, as few slices as possible, in order.

        Args:
            recorded: The configuration that the features were recorded for.

        Raises:
            ValueError: The features have a different signal or width, lack a layer, or come from a different model or
                adapter.
        """
        columns = self.reads.columns_in(recorded.reads)
        for what in ("fingerprint", "adapter"):
            own, there = getattr(self, what), getattr(recorded, what)
            # A head without an adapter may be used with one; `check_fits` warned of it in sampling
            if own is None or (what == "fingerprint" and there is None):
                continue
            if what == "fingerprint" and self._resized(recorded.base_vocab_size):
                # Their samples are of different rows of the embedding
                own, there = own | {"embedding": None}, there | {"embedding": None}
            distance = float("inf") if there is None else fingerprint_distance(own, there)
            if not distance <= FINGERPRINT_TOLERANCE:
                raise ValueError(
                    f"A head trained for {shortened(self.base_model or 'one model')} cannot be applied to features "
                    f"recorded of {shortened(recorded.base_model or 'another')}: their {what}s differ. Sample rollouts "
                    "with the head's own model."
                )
        return columns


def signal_class(name: Any) -> type[SignalReader]:
    """What heads read whose `config.signal` is this name.

    Raises:
        ValueError: The signal is unknown.
    """
    if not isinstance(name, str) or name not in SIGNALS:
        raise ValueError(f"Unknown signal {quoted(name)}: this version reads {', '.join(SIGNALS)}.")
    return SIGNALS[name]
