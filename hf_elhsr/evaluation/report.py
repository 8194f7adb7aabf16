"""Reports of evaluations and trade-offs: Markdown, which model cards include, and plots."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._files import replacing
from .best_of_n import Evaluation
from .tables import strategy_table
from .tradeoff import TradeOff


def check_figure(file: Path) -> None:
    """Refuse a plot that could not be drawn, before long work for it begins.

    Raises:
        ValueError: matplotlib is not installed, or the file is neither .svg nor .png.
    """
    if file.suffix not in (".svg", ".png"):
        raise ValueError(f"Plots are drawn as .svg or .png, not as {file.name!r}: change the file's suffix.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("The plot needs matplotlib: run `pip install 'hf-elhsr[plot]'`.")


@contextmanager
def save_figure(file: Path) -> Iterator[Any]:
    """Yield axes to draw on, and then save them; the file is written whole or not at all.

    Args:
        file: A .svg or .png file. The same numbers give the same file.

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
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        with replacing(file) as partial:
            figure.savefig(partial, format=form, dpi=150, metadata=metadata)


def evaluation_markdown(evaluation: Evaluation) -> str:
    """A section of a model card: accuracy of every strategy with intervals, and by number of candidates."""
    lines = [
        f"### {evaluation.prompts} prompts of the split `{evaluation.split}`{skipped_prompts(evaluation)}, "
        f"best of {evaluation.n}",
        "",
        *([f"{evaluation.unverified} more are left out: the verifier failed.", ""] if evaluation.unverified else []),
        *([f"{evaluation.overlong} more are left out: they are too long.", ""] if evaluation.overlong else []),
        f"Temperature {evaluation.sampling['temperature']}, top_p {evaluation.sampling['top_p']}, top_k "
        f"{evaluation.sampling['top_k']}, at most {evaluation.sampling['max_new_tokens']} new tokens.",
        "",
        strategy_table(evaluation).markdown(),
        "",
        f"The head closes {evaluation.gap_closed} % of the gap between a single sample and the oracle. Over all "
        f"{evaluation.prompts * evaluation.n:,} rollouts, {_answered(evaluation)}{100 * evaluation.base_rate:.1f} % of "
        f"them correct: AUC {evaluation.area_under_curve:.3f}, expected calibration error of sigmoid(R) "
        f"{evaluation.expected_calibration_error:.3f}{_brier(evaluation)}.",
    ]
    if evaluation.judges_minus:
        others = list(next(iter(evaluation.judges_minus.values())))
        lines += [
            "",
            f"| judge | {' | '.join(f'ahead of {other} by, points [95 % interval]' for other in others)} |",
            "|---|" + "---:|" * len(others),
        ]
        for judge, ahead in evaluation.judges_minus.items():
            lines.append(f"| {judge} | {' | '.join(str(ahead[other]) for other in others)} |")
    if evaluation.by_k:
        names, curves = list(evaluation.by_k), list(evaluation.by_k.values())
        lines += [
            "",
            f"| candidates | {' | '.join(f'{name}, % [95 % interval]' for name in names)} |",
            "|---:|" + "---:|" * len(names),
        ]
        # 1, 2, 4, ... and n: exact expectations over all subsets of the n rollouts
        shown = sorted({2**power for power in range(evaluation.n.bit_length())} | {evaluation.n})
        lines += [f"| {k} | {' | '.join(str(curve[k - 1]) for curve in curves)} |" for k in shown]
    return "\n".join(lines)


def skipped_prompts(measured: Evaluation | TradeOff) -> str:
    """A phrase for the prompts of the split that were skipped; empty if none were."""
    return f" after its first {measured.skip}" if measured.skip else ""


def plot_evaluation(evaluation: Evaluation, file: Path) -> None:
    """Draw accuracy against the number of candidates, with 95 % bands.

    Raises:
        ValueError: matplotlib is not installed, the file is neither .svg nor .png, or the evaluation was made by an
            earlier version and has no curves.
    """
    if not evaluation.by_k:
        raise ValueError("This evaluation has no accuracy by number of candidates: evaluate the rollouts again.")
    counts = range(1, evaluation.n + 1)
    with save_figure(file) as axes:
        for name, curve in evaluation.by_k.items():
            (line,) = axes.plot(counts, [100 * point.value for point in curve], marker="o", markersize=3, label=name)
            low, high = ([100 * getattr(point, end) for point in curve] for end in ("low", "high"))
            axes.fill_between(counts, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        axes.set_xlabel("candidates")
        axes.set_ylabel("correct, %")
        axes.set_title(f"{evaluation.task}: {evaluation.prompts} prompts ({evaluation.split}), 95 % bands")
        axes.legend(loc="best")


# Evaluations from earlier versions have neither of these two
def _answered(evaluation: Evaluation) -> str:
    return "" if evaluation.answered is None else f"{100 * evaluation.answered:.1f} % of them with a final answer and "


def _brier(evaluation: Evaluation) -> str:
    return "" if evaluation.brier_score is None else f", Brier score {evaluation.brier_score:.3f}"


def plot_tradeoff(tradeoff: TradeOff, file: Path) -> None:
    """Draw every curve, with a 95 % band of its paired difference from exact best-of-n.

    Raises:
        ValueError: matplotlib is not installed, or the file is neither .svg nor .png.
    """
    with save_figure(file) as axes:
        for name, points in tradeoff.curves.items():
            points = sorted(points, key=lambda point: point.tokens)
            tokens = [100 * point.tokens for point in points]
            (line,) = axes.plot(tokens, [100 * point.difference.value for point in points], label=name)
            low, high = ([100 * getattr(point.difference, end) for point in points] for end in ("low", "high"))
            axes.fill_between(tokens, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
            stored = tradeoff.by_tolerance.get(name, [])
            axes.plot(
                [100 * point.tokens for point in stored],
                [100 * point.difference.value for point in stored],
                "o",
                color=line.get_color(),
                markersize=5,
            )
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xlim(20, 102)
        axes.set_ylim(-10, 1.5)
        axes.set_xlabel(f"sampled tokens, % of exact best of {tradeoff.n}")
        axes.set_ylabel("accuracy minus that of exact best of n, points")
        axes.set_title(f"{tradeoff.prompts} prompts ({tradeoff.split}), 95 % bands; dots: the fitted tolerances")
        axes.legend(loc="lower right")
