"""plot_tradeoff: the curves of a trade-off, tokens against accuracy."""

from pathlib import Path

from .figures import save_figure
from .tradeoff import TradeOff


def plot_tradeoff(tradeoff: TradeOff, file: Path) -> None:
    """Draw every curve with a 95 % band of its paired difference to exact best-of-n.

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
            stored = tradeoff.by_regret.get(name, [])
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
        axes.set_ylabel("accuracy less that of exact best of n, points")
        axes.set_title(f"{tradeoff.prompts} prompts ({tradeoff.split}), 95 % bands; dots: the regrets a user can name")
        axes.legend(loc="lower right")
