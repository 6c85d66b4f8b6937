"""The style of figures of many runs: panels side by side, few ticks, plain numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from sdit_jax.files import atomic_write

INK, MUTED = "#1b1b1f", "#6f6f78"
STYLE: dict[Any, Any] = {
    "font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.labelcolor": INK,
    "xtick.color": MUTED, "ytick.color": MUTED,
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "legend.frameon": False, "legend.fontsize": 8.5, "lines.linewidth": 1.4, "axes.grid": True, "grid.color": "#e6e6ea",
    "grid.linewidth": 0.7, "axes.axisbelow": True, "text.parse_math": False,
}  # fmt: skip
COLORS = matplotlib.colormaps["viridis"]


def draw_panels(path: Path, panels: Sequence, fill: Callable[[Axes, Any], None], rows: int = 1) -> None:
    """Writes a PNG with one panel for each of `panels`, drawn by `fill(axes, panel)`, and room for a legend to the right."""
    with matplotlib.rc_context(STYLE):
        columns = len(panels) // rows
        figure = Figure(figsize=(4 * columns + 2, 3.7 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=True):
            fill(axes, panel)
            _few_ticks(axes)
        with atomic_write(path) as partial:
            figure.savefig(partial, format="png", dpi=160)


def _few_ticks(axes):
    """Evenly spaced over less than a factor of 4, at 1, 2 and 5 below a factor of 100, else at powers of ten."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        if not isinstance(axis.get_major_locator(), FixedLocator):
            decades = LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,))
            axis.set_major_locator(MaxNLocator(6) if high < 4 * low else decades)
            axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axis.set_minor_locator(NullLocator())


def short(value):
    """12,345 -> 12.3 k."""
    if value >= 1e9:
        return f"{value:.0e}".replace("e+", "e")
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
