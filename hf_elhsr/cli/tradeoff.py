"""`hf-elhsr tradeoff`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from ..evaluation import measure_tradeoff, plot_tradeoff
from ..evaluation.report import check_figure
from ..head.loading import load_reward_head
from ..hub.measurements import write_measurement
from ..hub.record import OTHER_ROWS, TrainingRecord
from ..rollouts import RolloutSet
from .options import Head, Json, NumbersFile, PlotFile
from .paths import check_file, expanded
from .result import show
from .terminal_tables import explain_calibration, tradeoff_table


def tradeoff(
    rollouts: Annotated[
        Path, typer.Argument(help="Folder made by `hf-elhsr evaluate` with this head.", callback=expanded)
    ],
    head: Head,
    numbers_file: NumbersFile = None,
    plot_file: PlotFile = None,
    as_json: Json = False,
) -> None:
    """Measure what pruning, adaptive n and abstention save and cost.

    The language model is not needed. `hf-elhsr card` reports what --numbers writes to tradeoff/*.json in the head's
    folder.
    """
    if plot_file is not None:
        check_figure(plot_file)
    for file in (numbers_file, plot_file):
        check_file(file)
    measured_on = RolloutSet(rollouts)
    record = TrainingRecord.read(Path(head))
    if record.order_changed(measured_on.settings):
        raise ValueError(OTHER_ROWS)
    if (known := record.known_as(measured_on.settings)) is not None:
        raise ValueError(
            f"The head in {head!r} was {known} on prompts of {str(rollouts)!r}, where its decisions cost less than "
            "elsewhere: sample different prompts, e.g. with --skip."
        )
    measured = measure_tradeoff(measured_on, load_reward_head(head))
    if numbers_file is not None:
        write_measurement(numbers_file, measured)
    if plot_file is not None:
        plot_file.parent.mkdir(parents=True, exist_ok=True)
        plot_tradeoff(measured, plot_file)
    show(as_json, dataclasses.asdict(measured), tradeoff_table(measured), explain_calibration(measured))
