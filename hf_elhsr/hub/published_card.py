"""published_card: the card that a head is published with."""

import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from huggingface_hub import ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from ..evaluation import Evaluation, evaluation_markdown
from ..head.configuration_elhsr import ElhsrConfig
from .card import TAG, render_card
from .measurements import missing_records
from .model_index import model_index_results

_AGAIN = "mend it, or let `hf-elhsr card` write the card again"
# As cards have what was measured: 37.2 [35.0, 39.4]
_MEASURED = re.compile(r"(-?\d+\.\d+)\s*%?\s*\[\s*(-?\d+\.\d+)\s*,\s*(-?\d+\.\d+)\s*\]")
# Where a card that was made here loads the head from
_SOURCE = re.compile(r'^    reward_head="([^"\n]+)",$', re.MULTILINE)


def published_card(folder: Path, repo_id: str, config: ElhsrConfig, evaluations: list[Evaluation]) -> str:
    """What `hf-elhsr card` writes, for the repository; or a card of one's own, which loads the head from there, too.

    Raises:
        ValueError: There is none; its metadata are not those by which heads are found; or it claims a result that is in
            no record of the head.
    """
    file = folder / "README.md"
    if not file.is_file():
        raise ValueError(f"{str(folder)!r} has no README.md: write a card from its records with `hf-elhsr card`.")
    text = file.read_text(encoding="utf-8")
    # Made for another place, be it a folder or a repository
    source = _SOURCE.search(text)
    made = None if missing_records(folder) else render_card(folder, source[1] if source else None)
    if text == made:
        return render_card(folder, repo_id)
    _check_metadata(_metadata(text), config, evaluations)
    _check_numbers(text, made or "\n".join(map(evaluation_markdown, evaluations)))
    places = {f"path/to/{folder.resolve().name}", *([source[1]] if source else [])}
    for place in places:
        # Other repositories are meant, this is not
        if place.startswith("path/to/"):
            text = text.replace(f'"{place}"', f'"{repo_id}"')
    return text


def _metadata(text: str) -> dict[str, Any]:
    """As they stand there: what reads them into classes leaves out what it does not know."""
    block = REGEX_YAML_BLOCK.search(text)
    try:
        metadata = yaml.safe_load(block[2]) if block else None
    except (ValueError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise ValueError(f"The metadata at the top of README.md cannot be read ({what}): mend them.") from error
    return metadata if isinstance(metadata, dict) else {}


def _check_metadata(metadata: dict[str, Any], config: ElhsrConfig, evaluations: list[Evaluation]) -> None:
    base_models, tags = metadata.get("base_model"), metadata.get("tags")
    named = base_models if isinstance(base_models, list) else [base_models]
    if TAG not in (tags or []) or config.base_model not in named:
        raise ValueError(
            f"The metadata at the top of README.md have base_model {base_models!r} and tags {tags!r}, but heads are "
            f"found by their model, {config.base_model!r}, and the tag {TAG!r}: add them, or let `hf-elhsr card` write "
            "the card."
        )
    own = ModelCardData(model_name=".", eval_results=model_index_results(evaluations)).to_dict()
    measured = _claims(own["model-index"])
    for claim in _claims(metadata.get("model-index")):
        if claim not in measured:
            known = [other["metrics"] for other in measured if other["dataset"] == claim.get("dataset")]
            raise ValueError(
                f"The metadata of README.md claim {claim['metrics']} on {claim.get('dataset')}, task "
                f"{claim.get('task')}, which is in no file of evaluation/ (on this dataset: {known or 'nothing'}): "
                f"{_AGAIN}."
            )


def _claims(model_index: Any) -> list[dict[str, Any]]:
    """Every metric, with all that is said of it."""
    try:
        return [
            {**result, "metrics": metric}
            for entry in model_index or []
            for result in entry["results"]
            for metric in result["metrics"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"The `model-index` at the top of README.md is none ({type(error).__name__}: {error}): {_AGAIN}."
        ) from error


def _check_numbers(text: str, measured: str) -> None:
    known = {numbers.groups() for numbers in _MEASURED.finditer(measured)}
    for numbers in _MEASURED.finditer(text):
        if numbers.groups() not in known:
            raise ValueError(f"README.md tells of {numbers[0]!r}, which is in no record of the head: {_AGAIN}.")
