"""published_card: the card that is published with a head."""

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

_AGAIN = "correct it, or let `hf-elhsr card` write the card again"
# How cards print a measurement: 37.2 [35.0, 39.4]
_MEASURED = re.compile(r"(-?\d+\.\d+)\s*%?\s*\[\s*(-?\d+\.\d+)\s*,\s*(-?\d+\.\d+)\s*\]")
# Where a card by `hf-elhsr card` loads the head from
_SOURCE = re.compile(r'^    reward_head="([^"\n]+)",$', re.MULTILINE)


def published_card(folder: Path, repo_id: str, config: ElhsrConfig, evaluations: list[Evaluation]) -> str:
    """The card of a folder, changed to load the head from the repository: one by `hf-elhsr card`, or the user's own.

    Raises:
        ValueError: The folder has no card; its metadata lack what heads are found by; or it claims a result that none
            of the head's records has.
    """
    file = folder / "README.md"
    if not file.is_file():
        raise ValueError(f"{str(folder)!r} has no README.md: write a card from its records with `hf-elhsr card`.")
    text = file.read_text(encoding="utf-8")
    # Written for another place, a folder or a repository
    source = _SOURCE.search(text)
    made = None if missing_records(folder) else render_card(folder, source[1] if source else None)
    if text == made:
        return render_card(folder, repo_id)
    _check_metadata(_metadata(text), config, evaluations)
    _check_numbers(text, made or "\n".join(map(evaluation_markdown, evaluations)))
    places = {f"path/to/{folder.resolve().name}", *([source[1]] if source else [])}
    for place in places:
        # A repository in the user's own card is meant as such; this path is a placeholder
        if place.startswith("path/to/"):
            text = text.replace(f'"{place}"', f'"{repo_id}"')
    return text


def _metadata(text: str) -> dict[str, Any]:
    """All metadata as written; reading them into huggingface_hub's classes would drop unknown fields."""
    block = REGEX_YAML_BLOCK.search(text)
    try:
        metadata = yaml.safe_load(block[2]) if block else None
    except (ValueError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise ValueError(f"The metadata at the top of README.md cannot be read ({what}): correct them.") from error
    return metadata if isinstance(metadata, dict) else {}


def _check_metadata(metadata: dict[str, Any], config: ElhsrConfig, evaluations: list[Evaluation]) -> None:
    base_models, tags = metadata.get("base_model"), metadata.get("tags")
    named = base_models if isinstance(base_models, list) else [base_models]
    if TAG not in (tags or []) or config.base_model not in named:
        raise ValueError(
            f"The metadata at the top of README.md have base_model {base_models!r} and tags {tags!r}, but heads are "
            f"found by their model, here {config.base_model!r}, and the tag {TAG!r}: add them, or let `hf-elhsr card` "
            "write the card."
        )
    own = ModelCardData(model_name=".", eval_results=model_index_results(evaluations)).to_dict()
    measured = _claims(own["model-index"])
    for claim in _claims(metadata.get("model-index")):
        if claim not in measured:
            known = [other["metrics"] for other in measured if other["dataset"] == claim.get("dataset")]
            raise ValueError(
                f"The metadata of README.md claim {claim['metrics']} on {claim.get('dataset')}, task "
                f"{claim.get('task')}, which no file of evaluation/ reports (on this dataset: {known or 'nothing'}): "
                f"{_AGAIN}."
            )


def _claims(model_index: Any) -> list[dict[str, Any]]:
    """Every metric, with the fields around it."""
    try:
        return [
            {**result, "metrics": metric}
            for entry in model_index or []
            for result in entry["results"]
            for metric in result["metrics"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"The `model-index` at the top of README.md is not one ({type(error).__name__}: {error}): {_AGAIN}."
        ) from error


def _check_numbers(text: str, measured: str) -> None:
    known = {numbers.groups() for numbers in _MEASURED.finditer(measured)}
    for numbers in _MEASURED.finditer(text):
        if numbers.groups() not in known:
            raise ValueError(f"README.md reports {numbers[0]!r}, which none of the head's records has: {_AGAIN}.")
