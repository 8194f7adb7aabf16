"""Explanation: why a candidate won, to be shown as a page, in a terminal or in a notebook."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from markupsafe import escape
from rich.console import RenderableType

from ..rollouts.whole_files import write_text
from .page import page
from .parts import ExplainedPrompt
from .terminal import terminal


@dataclass(frozen=True)
class Explanation:
    """What [`explain`] returns. `rich.print(explanation)` shows it in a terminal, a notebook displays it by itself.

    Texts in it are as the model wrote them; the page and the terminal show them without effect.

    Args:
        prompts: In the order of the batch.
        calibrated: Whether P(correct) is made by the head's calibration, or is sigmoid(R).
        base_model: The language model that the head was made for, where it is known.
    """

    prompts: tuple[ExplainedPrompt, ...]
    calibrated: bool = False
    base_model: str | None = None

    def to_html(self) -> str:
        """A page of its own: no scripts, and nothing that is loaded from elsewhere."""
        return page(self.prompts, self.calibrated, self.base_model)

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all; its folder is made."""
        file = Path(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, self.to_html())

    def to_json(self) -> str:
        """All numbers and texts, in ASCII."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n"

    def _repr_html_(self) -> str:
        # In a frame of its own, so that neither the notebook's style nor the page's reaches the other
        return (
            f'<iframe title="Why this candidate won" sandbox srcdoc="{escape(self.to_html())}" '
            'style="width: 100%; height: 40rem; border: 0"></iframe>'
        )

    def __rich__(self) -> RenderableType:
        return terminal(self.prompts, self.calibrated, self.base_model)
