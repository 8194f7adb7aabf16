# Made by hf_elhsr 0.1.0 from its hf_elhsr/generation/saved_settings.py, where changes belong.
# Copyright the hf_elhsr authors, Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0

"""What generation configs say about best-of-n: settings saved with a model, which hold unless the call differs."""

import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers import GenerationConfig
from transformers.generation import GenerationMixin
from transformers.utils import GENERATION_CONFIG_NAME

#: Arguments of `generate` that a generation config may hold, since JSON can.
SAVED_SETTINGS = (
    "best_of_n",
    "reward_head",
    "combine",
    "output_token_rewards",
    "prune",
    "adaptive",
    "min_confidence",
    "max_parallel",
)
_FOR_CALLS_ALONE = ("extract_answer", "signal_processor")
_GENERATE_PARAMETERS = tuple(inspect.signature(GenerationMixin.generate).parameters)[1:-1]


class _Saved(NamedTuple):
    value: Any
    source: str


def with_saved_settings(generate: Callable[..., Any]) -> Callable[..., Any]:
    """`generate` with what the call leaves out taken from the generation configs, where these have any of it.

    The call comes first, then a `generation_config` passed to it, then the model's own; like transformers' own
    settings, None means unset. Settings without a `best_of_n` anywhere are not looked at. Errors are told which
    settings come from a config, since whoever calls may not know of them.

    Raises:
        ValueError: A config holds what could not be saved: a head that is not named by text, or a function.
    """

    @functools.wraps(generate)
    def with_settings(model: Any, *args: Any, **kwargs: Any) -> Any:
        passed = dict(zip(_GENERATE_PARAMETERS, args, strict=False)) | kwargs
        saved = _saved_settings(passed.get("generation_config"), model.generation_config)
        saved = {name: setting for name, setting in saved.items() if kwargs.get(name) is None}
        if not saved or (kwargs.get("best_of_n") is None and "best_of_n" not in saved):
            return generate(model, *args, **kwargs)
        try:
            _check(saved)
            return generate(model, *args, **kwargs | {name: setting.value for name, setting in saved.items()})
        except ValueError as error:
            for name, setting in saved.items():
                error.add_note(f"{name}={setting.value!r} comes from {setting.source}.")
            raise

    return with_settings


def _saved_settings(passed: GenerationConfig | None, own: GenerationConfig | None) -> dict[str, _Saved]:
    saved = {}
    for source, config in (("the model's generation_config", own), ("the generation_config passed", passed)):
        for name in (*SAVED_SETTINGS, *_FOR_CALLS_ALONE):
            if (value := getattr(config, name, None)) is not None:
                saved[name] = _Saved(value, source)
    return saved


def _check(saved: dict[str, _Saved]) -> None:
    for name in _FOR_CALLS_ALONE:
        if name in saved:
            raise ValueError(f"{name} in {saved[name].source} could not be saved: pass it to generate itself.")
    if "reward_head" in saved:
        head, source = saved["reward_head"]
        if not all(isinstance(name, str) for name in (head if isinstance(head, list | tuple) else [head])):
            raise ValueError(
                f"reward_head in {source} must be text, a folder or 'org/name', so that it can be saved; got "
                f"{type(head).__name__}. Pass the head itself to generate."
            )


def keep_when_saved(config: GenerationConfig | None) -> None:
    """Make a generation config that transformers derived from the model's config keep our settings when reloaded.

    Its `_from_model_config` says that it holds nothing but what the model's config said, and what transformers does
    not know is then dropped in loading. With settings of its own that is not so any more.
    """
    if config is not None and any(getattr(config, name, None) is not None for name in SAVED_SETTINGS):
        config._from_model_config = False


def restore_dropped(model: Any) -> None:
    """Take from the model's generation_config.json the settings of ours that transformers dropped in loading it.

    It does so where the file says `_from_model_config`, see [`keep_when_saved`], which cannot be at hand where a model
    is saved that has not been enabled.
    """
    config = model.generation_config
    if not getattr(config, "_from_model_config", False):
        return
    path = _generation_config_file(
        getattr(model.config, "_name_or_path", ""), getattr(model.config, "_commit_hash", None)
    )
    if path is None:
        return
    written = json.loads(path.read_text(encoding="utf-8"))
    for name in SAVED_SETTINGS:
        if written.get(name) is not None and getattr(config, name, None) is None:
            setattr(config, name, written[name])
    keep_when_saved(config)


def _generation_config_file(source: str, revision: str | None) -> Path | None:
    """The file of a folder or of a repository in the cache, where there is one."""
    if not source:
        return None
    if Path(source).is_dir():
        path = Path(source) / GENERATION_CONFIG_NAME
        return path if path.is_file() else None
    try:
        cached = try_to_load_from_cache(source, GENERATION_CONFIG_NAME, revision=revision)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None
