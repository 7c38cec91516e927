"""The page that shows a run over sites while it goes on. Self-contained: nothing is loaded but it.

The page is made here, whole, at every look. Its script fetches the same address again and takes
over what differs, so it knows nothing of what it shows.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from silotune.core.plain import plain
from silotune.core.units import metric_text

from . import live_words
from .live_view import View


@dataclass(frozen=True)
class Curve:
    """A metric over rounds, in a picture of 100 by 100; y points down.

    Attributes:
        points: of the line, as SVG has them.
        top: the value at the upper edge, in words.
        bottom: the same at the lower one.
    """

    points: str
    top: str
    bottom: str


def live_page(view: View) -> str:
    """A view as HTML."""
    return _template().render(
        view=view,
        plain=plain,
        words=live_words,
        sites=view.sites,
        curve=curve(view.values, view.live.rounds, view.live.metric),
    )


def damaged_page(why: str) -> str:
    """What stands there while a view cannot be read."""
    return _template().render(view=None, why=plain(why, 500))


def content_policy() -> str:
    """The header ``Content-Security-Policy``: our own script and style, and nobody else."""
    script, style = (_digest(name) for name in ("script", "style"))
    return (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def curve(values: Sequence[tuple[int, float]], rounds: int, metric: str) -> Curve | None:
    """The line through some values; None if there are fewer than two.

    Args:
        values: by round, finite.
        rounds: at the right edge.
        metric: whose values they are.
    """
    if len(values) < 2:
        return None
    low, high = (edge(value for _, value in values) for edge in (min, max))
    room = (high - low) * 0.1 or abs(high) * 0.1 or 1.0
    low, high = low - room, high + room
    most = max(rounds, values[-1][0])

    def point(at: int, value: float) -> str:
        return f"{100 * at / most:.2f},{100 * (high - value) / (high - low):.2f}"

    points = " ".join(point(*value) for value in values)
    return Curve(points, metric_text(metric, high), metric_text(metric, low))


@cache
def _digest(block: str) -> str:
    """SHA-256 of what stands between the tags, as a policy names it."""
    template = _template()
    text = "".join(template.blocks[block](template.new_context()))
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("live.html")
