"""save_figure: one way to draw all plots."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def check_figure(file: Path) -> None:
    """Refuse a plot that could not be drawn, before long work for it begins.

    Raises:
        ValueError: matplotlib is not installed, or the file is named otherwise than *.svg or *.png.
    """
    if file.suffix not in (".svg", ".png"):
        raise ValueError(f"Plots are drawn as .svg or .png, not as {file.name!r}: name the file so.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("The plot needs matplotlib: run `pip install 'hf-elhsr[plot]'`.")


@contextmanager
def save_figure(file: Path) -> Iterator[Any]:
    """Axes to draw on; in the end they are in the file, which is whole or not there.

    Args:
        file: *.svg or *.png. The same numbers give the same file.

    Raises:
        ValueError: See [`check_figure`].
    """
    check_figure(file)
    form = file.suffix.removeprefix(".")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "hf_elhsr", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(alpha=0.3)
        yield axes
        partial = file.with_name(file.name + ".partial")
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        figure.savefig(partial, format=form, dpi=150, metadata=metadata)
        partial.replace(file)
