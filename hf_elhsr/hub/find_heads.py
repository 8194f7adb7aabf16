"""find_heads: the reward heads on the Hub for a language model, best first."""

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
    """A head on the Hub, with the result that its own card reports.

    Args:
        repo_id: The value for `reward_head`.
        task, split: The prompts that the result was measured on; None for a card without results. If there are several,
            the first on a split "test" is taken, or else the first.
        accuracy: The best-of-n accuracy, between 0 and 1.
        interval: The ends of its 95 % interval; None where the card has none.
        metric: The metric's name, with n.
        signal: What the head reads, see `ElhsrConfig.signal`; None where the card does not say.
        downloads: Downloads in the last 30 days.
        last_modified: Time of the last commit.
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
    """Find the Hub's heads for a language model: highest reported accuracy first, heads without a result last.

    Results are claims of the cards, each on its own task: compare them only where the task is the same.

    Args:
        model: The language model, or its id on the Hub; a name without "/" is looked up there.
        task: Only heads that report a result on this task, ordered by that result.
        token: A token for the Hub, which private heads need. Default: the one that `hf auth login` stored.

    Raises:
        ValueError: The model was not loaded from the Hub.
        OSError: The Hub refused, or could not be reached.
    """
    base_model = model if isinstance(model, str) else str(model.config.name_or_path)
    api = HfApi(token=token)
    if _is_bare_name(base_model):
        # The oldest models have a short name: "gpt2" is "openai-community/gpt2", and cards have the full one
        with asking_the_hub(f"look up the model {base_model!r}"):
            base_model = api.model_info(base_model).id
    if base_model.count("/") != 1 or base_model.startswith((".", "/", "~")):
        raise ValueError(f'Expected a model\'s id on the Hub, "org/name", got {base_model!r}.')
    with asking_the_hub(f"list the heads for {base_model!r}"):
        infos = list(
            api.list_models(
                filter=[TAG, f"base_model:{base_model}"],
                # Not cardData, which the client reads into classes: one malformed card would end the list
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
