"""Charts of the report as inline SVG with the colours and fonts of the page, light or dark."""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

WIDTH = 400  # In the SVG's own units; the page scales it.
INK, MUTED, ACCENT, SECOND, THIRD = "#010101", "#020202", "#030303", "#040404", "#050505"  # Replaced by COLORS.
COLORS = {INK: "currentColor", MUTED: "var(--muted)", ACCENT: "var(--accent)", SECOND: "var(--second)", THIRD: "var(--third)"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "report", "text.parse_math": False, "font.family": "sans-serif", "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.labelcolor": MUTED,
    "xtick.color": MUTED, "ytick.color": MUTED, "text.color": INK, "axes.facecolor": "none", "figure.facecolor": "none",
    "legend.frameon": False, "lines.linewidth": 1.8, "lines.solid_capstyle": "round",
}  # fmt: skip


def comparison(rows: Sequence[tuple[str, float]], chosen: str, write: Callable[[float], str]) -> str:
    """Named values in ascending order, each a point on a logarithmic line, `chosen` in colour; `write` formats them.

    Values that are not positive are at the left end.
    """
    rows = sorted(rows, key=lambda row: row[1])
    values = np.array([value for _, value in rows], float)
    positive = values[(values > 0) & np.isfinite(values)]
    left, right = (positive.min() / 1.4, positive.max() * 1.4) if len(positive) else (0.1, 1)

    def draw(axes):
        axes.set(xscale="log", xlim=(left, right), ylim=(len(rows) - 0.4, -0.75), yticks=[])
        axes.spines["left"].set_visible(False)
        _label_log(axes.xaxis, left, right)
        for i, (name, value) in enumerate(rows):
            color, weight = (ACCENT, "bold") if name == chosen else (INK, "normal")
            at = min(max(value, left), right)
            axes.plot([left, right], [i, i], color=MUTED, linewidth=0.6, alpha=0.5)
            axes.plot([at], [i], "o", color=color, markersize=8 if name == chosen else 5.5, clip_on=False)
            axes.text(0, i - 0.22, name, transform=axes.get_yaxis_transform(), color=color, weight=weight)
            axes.text(1, i - 0.22, write(value), transform=axes.get_yaxis_transform(), color=color, weight=weight, ha="right")

    words = "; ".join(f"{name}: {write(value)}" for name, value in rows)
    return _svg(draw, 26 * len(rows) + 34, f"Chart on a logarithmic scale. {words}.", bottom=26, left=6)


def lines(x: Sequence[float], series: Mapping[str, Sequence[float]], x_label: str) -> str:
    """One line per name over x; logarithmic if all values are positive and span more than a factor of five."""
    arrays = {name: np.asarray(values, float) for name, values in series.items()}
    everything = np.concatenate(list(arrays.values()))
    log = bool((everything > 0).all() and everything.max() > 5 * everything.min())

    def draw(axes):
        for i, (name, values) in enumerate(arrays.items()):
            style = {"color": (ACCENT, SECOND, THIRD)[i % 3], "linestyle": ("-", "--", ":", "-.")[i % 4]}
            axes.plot(x, values, marker="o", markersize=3.5, label=name, **style)
        axes.set_xlabel(x_label)
        axes.grid(axis="y", color=MUTED, alpha=0.25, linewidth=0.6)
        if log:
            axes.set_yscale("log")
            _label_log(axes.yaxis, everything.min(), everything.max())
        axes.figure.legend(loc="upper left", ncols=3, bbox_to_anchor=(0, 1.01), labelcolor=INK, handlelength=2.4)

    names = ", ".join(f"{name} from {values[0]:.3g} to {values[-1]:.3g}" for name, values in arrays.items())
    return _svg(draw, 240, f"Lines over {x_label}: {names}.", bottom=40, left=44, top=30)


def densities(series: Mapping[str, Sequence[float]], x_label: str) -> str:
    """A histogram of area one per name."""
    arrays = {name: np.asarray(values, float) for name, values in series.items()}
    bins = np.histogram_bin_edges(np.concatenate(list(arrays.values())), 24)

    def draw(axes):
        for (name, values), color, style in zip(arrays.items(), (ACCENT, SECOND, THIRD), ("-", "--", ":"), strict=False):
            axes.hist(values, bins, density=True, histtype="stepfilled", color=color, alpha=0.18)
            axes.hist(values, bins, density=True, histtype="step", color=color, linewidth=1.8, linestyle=style, label=name)
        axes.set(xlabel=x_label, yticks=[])
        axes.spines["left"].set_visible(False)
        axes.figure.legend(loc="upper left", ncols=3, bbox_to_anchor=(0, 1.01), labelcolor=INK, handlelength=2.4)

    names = ", ".join(f"{name} with median {np.median(values):.3g}" for name, values in arrays.items())
    return _svg(draw, 190, f"Histograms of {x_label}: {names}.", bottom=40, left=6, top=30)


def _label_log(axis, low, high):
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _svg(draw: Callable[[Axes], None], height: int, words: str, *, bottom: int, left: int, top: int = 4) -> str:
    """One drawing with margins in the units of the SVG; `words` are its description for screen readers."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # The browser has the glyph.
        figure = Figure(figsize=(WIDTH / 72, height / 72))
        right = 6 / WIDTH
        draw(figure.add_axes((left / WIDTH, bottom / height, 1 - left / WIDTH - right, 1 - (bottom + top) / height)))
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True)
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' id="[\w.]+_\d+"', "", text)  # Otherwise charts of one page share ids.
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r"<svg[^>]*>", f'<svg role="img" viewBox="0 0 {WIDTH} {height}">', text, count=1)
    for stand_in, color in COLORS.items():
        text = text.replace(stand_in, color)
    return text.replace("<svg role", f'<svg aria-label="{_attribute(words)}" role', 1)


def _attribute(words):
    return words.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
