"""The environment of the pages: where their templates are, and how values are written in them."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from silotune.core import units

from .certainty import Interval, wilson


@cache
def environment() -> Environment:
    """Remembered: to compile the templates takes longer than to fill them."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": units.human_bytes,
        "seconds": units.human_seconds,
        "metric": lambda value, name: units.metric_text(name, value),
        "number": units.number_text,
        "epsilon": units.epsilon_text,
        "scientific": units.scientific,
        "count": lambda value: units.DASH if value is None else f"{value:,}",
        "plural": units.count_text,
        "interval": _interval,
        "wilson": lambda share, n, name: _interval(wilson(share, n), name) if n else "",
        "percent": lambda share: f"{share:.1%}",
        "moment": _moment,
        "word": lambda status: str(status).partition(":")[0],
    }
    return environment


def _interval(pair: Interval | None, name: str) -> str:
    """``80.1 % to 86.6 %``."""
    if pair is None or not all(map(math.isfinite, pair)):
        return units.DASH
    return " to ".join(units.metric_text(name, end) for end in pair)


def _moment(iso: str | None) -> str:
    """``2026-03-02 09:15 UTC``."""
    if iso is None:
        return "not yet"
    zone = " UTC" if iso.endswith(("+00:00", "Z")) else ""
    return iso[:16].replace("T", " ") + zone
