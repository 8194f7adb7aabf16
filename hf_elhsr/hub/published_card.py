"""published_card: the card that a head is published with."""

import re
from pathlib import Path

import yaml  # type: ignore[import-untyped]
from huggingface_hub import ModelCard

from ..configuration_elhsr import ElhsrConfig
from ..evaluation import Evaluation
from .card import TAG, missing_records, render_card
from .reported_results import model_index_results, reported_results


def published_card(folder: Path, repo_id: str, config: ElhsrConfig, evaluations: list[Evaluation]) -> str:
    """The folder's README.md as it is; or, if that is what `hf-elhsr card` writes, written for the repository.

    Raises:
        ValueError: There is none; its metadata are not those by which heads are found; or it claims a result that is in
            no file of `evaluation/`.
    """
    file = folder / "README.md"
    if not file.is_file():
        raise ValueError(f"{str(folder)!r} has no README.md: write a card from its records with `hf-elhsr card`.")
    text = file.read_text(encoding="utf-8")
    # Made for another place, be it a folder or a repository
    source = re.search(r'^    reward_head="([^"\n]+)",$', text, re.MULTILINE)
    if source and not missing_records(folder) and text == render_card(folder, source[1]):
        return render_card(folder, repo_id)
    _check_metadata(text, config, evaluations)
    return text


def _check_metadata(text: str, config: ElhsrConfig, evaluations: list[Evaluation]) -> None:
    try:
        metadata = ModelCard(text).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise ValueError(f"The metadata at the top of README.md cannot be read ({what}): mend them.") from error
    base_models, tags = metadata.get("base_model"), metadata.get("tags")
    named = base_models if isinstance(base_models, list) else [base_models]
    if TAG not in (tags or []) or config.base_model not in named:
        raise ValueError(
            f"The metadata at the top of README.md have base_model {base_models!r} and tags {tags!r}, but heads are "
            f"found by their model, {config.base_model!r}, and the tag {TAG!r}: add them, or let `hf-elhsr card` write "
            "the card."
        )
    measured = {
        (result.dataset_name, result.dataset_split, result.metric_value) for result in model_index_results(evaluations)
    }
    for claim in reported_results(metadata.get("model-index")):
        if (claim.task, claim.split, round(100 * claim.accuracy, 1)) not in measured:
            raise ValueError(
                f"The metadata of README.md claim {claim.accuracy:.1%} on {claim.task!r}, split {claim.split!r}, which "
                "is in no file of evaluation/: write the card again with `hf-elhsr card`."
            )
