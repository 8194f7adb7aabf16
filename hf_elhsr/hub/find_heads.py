"""find_heads: the reward heads on the Hub that were made for a language model, best first."""

import os
from dataclasses import dataclass
from datetime import datetime

from huggingface_hub import HfApi, ModelInfo
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from transformers import PreTrainedModel

from .card import SIGNAL_TAG, TAG
from .errors import asking_the_hub
from .model_index import reported_results


@dataclass(frozen=True)
class FoundHead:
    """A head on the Hub, with what its own card reports.

    Args:
        repo_id: What `reward_head` takes.
        task, split: What the reported result was measured on; None where the card reports none. Of several results it
            is the first on a split "test", or else the first.
        accuracy: Best-of-n accuracy there, between 0 and 1.
        interval: The ends of its 95 % interval; None where the card has none.
        metric: The metric's name, with n.
        signal: What the head reads, as `ElhsrConfig.signal`; None where the card does not say.
        downloads: In the last 30 days.
        last_modified: When it was last committed to.
    """

    repo_id: str
    task: str | None = None
    split: str | None = None
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    metric: str | None = None
    signal: str | None = None
    downloads: int | None = None
    last_modified: datetime | None = None


def find_heads(
    model: PreTrainedModel | str, *, task: str | None = None, token: str | bool | None = None
) -> list[FoundHead]:
    """The Hub's heads for a language model, best reported accuracy first, those without a result last.

    Results are what cards claim, of their own tasks: compare them only where the task is the same.

    Args:
        model: The language model, or its id on the Hub; a name without "/" is looked up there.
        task: Only heads that report a result on this task, by that result.
        token: Of the Hub; by default the one that `hf auth login` stored. Private heads need it.

    Raises:
        ValueError: A model that was not loaded from the Hub.
        OSError: What the Hub refused, or that it was not reached.
    """
    base_model = model if isinstance(model, str) else str(model.config.name_or_path)
    api = HfApi(token=token)
    if _is_bare_name(base_model):
        # Models from before there were organisations: "gpt2" is "openai-community/gpt2", by which heads name it
        with asking_the_hub(f"look up the model {base_model!r}"):
            base_model = api.model_info(base_model).id
    if base_model.count("/") != 1 or base_model.startswith((".", "/", "~")):
        raise ValueError(f'Expected a model\'s id on the Hub, as "org/name", got {base_model!r}.')
    with asking_the_hub(f"list the heads for {base_model!r}"):
        infos = list(
            api.list_models(
                filter=[TAG, f"base_model:{base_model}"],
                # Not cardData, which the client reads into classes: a card that does not fit would end the list
                expand=["model-index", "tags", "downloads", "lastModified"],
            )
        )
    found = [_found(info, task) for info in infos]
    if task is not None:
        found = [head for head in found if head.task is not None]
    return sorted(found, key=lambda head: (head.accuracy is None, -(head.accuracy or 0.0), head.repo_id))


def _is_bare_name(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" not in name and not os.path.isdir(name)


def _found(info: ModelInfo, task: str | None) -> FoundHead:
    results = [result for result in reported_results(info.model_index) if task in (None, result.task)]
    chosen = next(iter([*(result for result in results if result.split == "test"), *results]), None)
    signals = [tag.removeprefix(SIGNAL_TAG) for tag in info.tags or [] if tag.startswith(SIGNAL_TAG)]
    return FoundHead(
        info.id,
        **({} if chosen is None else vars(chosen)),
        signal=next(iter(signals), None),
        downloads=info.downloads,
        last_modified=info.last_modified,
    )
