"""An evaluation for people: as Markdown, which model cards include, and as a plot."""

from pathlib import Path

from .best_of_n import Evaluation
from .figures import save_figure
from .tradeoff import TradeOff


def evaluation_markdown(evaluation: Evaluation) -> str:
    """A section of a model card: accuracy of every strategy with intervals, and by number of candidates."""
    lines = [
        f"### {evaluation.prompts} prompts of the split `{evaluation.split}`{skipped_prompts(evaluation)}, "
        f"best of {evaluation.n}",
        "",
        *([f"{evaluation.unverified} more are left out: the verifier failed.", ""] if evaluation.unverified else []),
        f"Temperature {evaluation.sampling['temperature']}, top_p {evaluation.sampling['top_p']}, top_k "
        f"{evaluation.sampling['top_k']}, at most {evaluation.sampling['max_new_tokens']} new tokens.",
        "",
        "| answer by | right, % [95 % interval] | head is ahead by, points [95 % interval] |",
        "|---|---:|---:|",
    ]
    for name, measured in evaluation.accuracy.items():
        bold = "**" if name == "reward head" else ""
        lines.append(f"| {bold}{name}{bold} | {bold}{measured}{bold} | {evaluation.head_minus.get(name, '')} |")
    lines += [
        "",
        f"The head closes {evaluation.gap_closed} % of the gap between a single sample and the oracle. Over all "
        f"{evaluation.prompts * evaluation.n:,} rollouts, {_answered(evaluation)}{100 * evaluation.base_rate:.1f} % of "
        f"them right: AUC {evaluation.area_under_curve:.3f}, expected calibration error of sigmoid(R) "
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
    """Which prompts of the split were left out, in words."""
    return f" after its first {measured.skip}" if measured.skip else ""


def plot_evaluation(evaluation: Evaluation, file: Path) -> None:
    """Draw accuracy against the number of candidates, with 95 % bands; .svg or .png as the file is named.

    Raises:
        ValueError: matplotlib is not installed, the file is named otherwise, or the evaluation was made by an earlier
            version and has no curves.
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
        axes.set_ylabel("right, %")
        axes.set_title(f"{evaluation.task}: {evaluation.prompts} prompts ({evaluation.split}), 95 % bands")
        axes.legend(loc="best")


# Evaluations of earlier versions have neither
def _answered(evaluation: Evaluation) -> str:
    return "" if evaluation.answered is None else f"{100 * evaluation.answered:.1f} % of them with a final answer and "


def _brier(evaluation: Evaluation) -> str:
    return "" if evaluation.brier_score is None else f", Brier score {evaluation.brier_score:.3f}"
