"""find_heads: the reward heads on the Hub that were made for a language model, best first."""

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from huggingface_hub import HfApi, ModelInfo
from huggingface_hub.errors import HfHubHTTPError
from transformers import PreTrainedModel

from .card import METRIC, TAG


@dataclass(frozen=True)
class FoundHead:
    """A head on the Hub, with what its own card reports.

    Args:
        repo_id: What `reward_head` takes.
        task, split: What the best reported result was measured on; None where the card reports none.
        accuracy: Best-of-n accuracy there, between 0 and 1.
        metric: The metric's name, with n.
        downloads: In the last 30 days.
        last_modified: When it was last committed to.
    """

    repo_id: str
    task: str | None = None
    split: str | None = None
    accuracy: float | None = None
    metric: str | None = None
    downloads: int | None = None
    last_modified: datetime | None = None


def find_heads(model: PreTrainedModel | str, *, token: str | bool | None = None) -> list[FoundHead]:
    """The Hub's heads for a language model, best reported accuracy first, those without a result last.

    Results are what cards claim, of their own tasks: compare them only where the task is the same.

    Args:
        model: The language model, or its id on the Hub.
        token: Of the Hub; by default the one that `hf auth login` stored. Private heads need it.

    Raises:
        ValueError: A model that was not loaded from the Hub.
        OSError: What the Hub refused.
    """
    base_model = model if isinstance(model, str) else str(model.config.name_or_path)
    if base_model.count("/") != 1 or base_model.startswith((".", "/", "~")):
        raise ValueError(f'Expected a model\'s id on the Hub, as "org/name", got {base_model!r}.')
    try:
        infos = list(
            HfApi(token=token).list_models(
                filter=[TAG, f"base_model:{base_model}"],
                expand=["cardData", "model-index", "downloads", "lastModified"],
            )
        )
    except HfHubHTTPError as error:
        raise OSError(
            f"The Hub was asked for heads of {base_model!r} and answered {error.response.status_code} "
            f"({(error.server_message or str(error).splitlines()[0]).strip()})."
        ) from error
    found = [_found(info) for info in infos]
    return sorted(found, key=lambda head: (head.accuracy is None, -(head.accuracy or 0.0), head.repo_id))


def _found(info: ModelInfo) -> FoundHead:
    # A card's metadata is anybody's, and may have anything in its place
    results = [
        (float(metric["value"]) / 100, metric["name"], result["dataset"])
        for entry in _list(info.model_index)
        for result in _list(entry.get("results"))
        if isinstance(result.get("dataset"), dict)
        for metric in _list(result.get("metrics"))
        if metric.get("type") == METRIC and isinstance(metric.get("name"), str) and _is_share(metric.get("value"))
    ]
    head = FoundHead(info.id, downloads=info.downloads, last_modified=info.last_modified)
    if not results:
        return head
    accuracy, name, dataset = max(results, key=lambda result: result[0])
    task, split = (str(dataset.get(key)) for key in ("name", "split"))
    return dataclasses.replace(head, task=task, split=split, accuracy=accuracy, metric=name)


def _list(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100
