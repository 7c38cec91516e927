"""The canvas of all pictures: colours, style, legends, and SVG text that any page can hold.

The colours are those of Okabe and Ito, which people with any colour vision can tell apart. Texts
stay texts, drawn in the reader's own font. There is no clock, network, window or global figure:
equal pictures have equal bytes.
"""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

INK, MUTED, GRID, SURFACE, OTHER = "#1c1f23", "#646b75", "#e4e6e9", "#ffffff", "#a9afb8"
SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#44337a")
NAMES = {INK: "ink", MUTED: "muted", GRID: "grid", SURFACE: "surface", OTHER: "other"} | {
    color: f"series-{i}" for i, color in enumerate(SERIES)
}
"""Each colour's name: a page may define ``--ink``, ``--series-0`` and so on."""

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": GRID,
    "axes.facecolor": SURFACE,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": SURFACE,
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "legend.labelcolor": MUTED,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "silotune",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
}


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """An empty picture in our style; draw and save it inside. Sizes in inches."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def legend(figure: Figure, entries: Sequence[tuple[str, Line2D | Patch]]) -> None:
    """Name what is drawn, above it; nothing for a single entry, which the axis names."""
    if len(entries) > 1:
        texts = [f" {plain(name)}" for name, _ in entries]  # a leading "_" would hide an entry
        room = 13 * figure.get_figwidth()  # letters in a row, about
        fits = sum(len(text) + 5 for text in texts) <= room
        columns = len(texts) if fits else max(1, int(room / (max(map(len, texts)) + 5)))
        handles = [handle for _, handle in entries]
        figure.legend(handles, texts, loc="outside upper left", ncols=columns, handletextpad=0.3)


def plain(text: str) -> str:
    """A name that any SVG reader can show: printable, and not too long."""
    clean = "".join(c if c.isprintable() else "�" for c in text)
    return clean if len(clean) <= 24 else f"{clean[:23]}…"


def svg(figure: Figure, title: str) -> str:
    """The picture as SVG that stands alone, or inside a page beside pictures of other titles."""
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # the reader's font draws the texts; that ours lacks a letter of theirs is no matter
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata=nothing)
    return _self_contained(buffer.getvalue(), plain(title))


def themed(picture: str) -> str:
    """The SVG with every colour as ``var(--name, colour)``, for a page that defines them."""
    colors = "|".join(NAMES)
    return re.sub(colors, lambda color: f"var(--{NAMES[color[0]]}, {color[0]})", picture)


def metric_ticks(metric: str) -> FuncFormatter:
    """An axis of a metric: percent for accuracy."""
    percent = metric == "accuracy"
    return FuncFormatter(lambda v, _: f"{100 * v:.3g} %" if percent else f"{v:.4g}")


def names_of(mappings: Iterable[Mapping[str, object]]) -> list[str]:
    """All keys, each once, as they first come."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def finite(groups: Iterable[Iterable[float | None]]) -> list[float]:
    """All numbers that can be drawn."""
    return [v for group in groups for v in group if v is not None and math.isfinite(v)]


def _self_contained(text: str, title: str) -> str:
    """Drop what a page does not need; make ids unique, so that pictures can share a page."""
    prefix = re.sub(r"\W+", "-", title)
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", text)
    text = text.replace("xlink:href", "href").replace(
        ' xmlns:xlink="http://www.w3.org/1999/xlink"', ""
    )
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    label = f'role="img" aria-label="{html.escape(title)}" stroke-linejoin="round"'
    return text.replace("<svg", f"<svg {label}", 1)
