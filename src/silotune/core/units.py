"""Numbers as people read them. Absent and undefined values are a dash."""

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal

DASH = "–"


def human_bytes(count: float) -> str:
    """Bytes in decimal units, three digits: ``999 B``, ``1.25 kB``, ``34 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB" if abs(count) < 999.5 else f"{count:,.0f} TB"


def human_seconds(seconds: float) -> str:
    """A duration: ``0.4 s``, ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if not math.isfinite(seconds):
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def metric_text(name: str, value: float | None) -> str:
    """A metric: accuracy in percent, anything else with three decimals or four digits."""
    if value is None or not math.isfinite(value):
        return DASH
    if name == "accuracy":
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if 0.01 <= abs(value) < 10 else _short(f"{value:.4g}")


def change_text(name: str, before: float, after: float) -> str:
    """A signed change: points for accuracy, the metric's own unit otherwise."""
    change = after - before
    if not math.isfinite(change):
        return DASH
    return f"{100 * change:+.1f} points" if name == "accuracy" else f"{change:+.4g}"


def number_text(value: float | None) -> str:
    """A number with up to four digits, without padding: ``6``, ``0.8136``, ``1e-5``, ``0``."""
    return DASH if value is None or not math.isfinite(value) else _short(f"{value:.4g}")


def epsilon_text(value: float) -> str:
    """An epsilon with two decimals, rounded up, since it is an upper bound: ``5.99``, ``∞``."""
    if not math.isfinite(value):
        return DASH if math.isnan(value) else "∞"
    exact = Decimal(f"{value:.9g}")  # what calibration left in the last bits is no loss
    return str(exact.quantize(Decimal("0.01"), ROUND_CEILING))


def scientific(value: float) -> str:
    """A number over many decades: ``3.1e-8``; zero is ``0``, because then it is exact."""
    if not math.isfinite(value):
        return DASH
    return "0" if value == 0 else _short(f"{value:.1e}")


def count_text(count: int, noun: str) -> str:
    """A count and its noun: ``1 round``, ``3,200 records``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def names_text(names: Sequence[str], most: int) -> str:
    """Names in a row, those beyond the first few as a number: ``a, b and 4 others``."""
    if len(names) <= most + 1:  # "and 1 other" is no shorter than the name
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most:,} others"


def _short(text: str) -> str:
    """``1e-5`` for ``1e-05``."""
    return text.replace("e-0", "e-").replace("e+0", "e+")
