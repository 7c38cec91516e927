"""How sure a score is: 95 % intervals over the records that were scored, of one run."""

from __future__ import annotations

import math

from silotune.core.units import metric_text
from silotune.runs.scored import Scored

Interval = tuple[float, float]

Z = 1.959964
"""Standard errors on either side of a normal mean that hold 95 %."""

METHOD = (
    "Intervals are of 95 %, over the records scored, and of this one run: Wilson's for accuracy; "
    "for others the value and 1.96 standard errors, those of macro-F1 by the delta method. They do "
    "not say how another seed, other noise or other silos would end."
)


def wilson(share: float, records: float) -> Interval:
    """Of a share of right answers (Wilson, JASA 22, 1927)."""
    if not records or math.isnan(share):
        return (math.nan, math.nan)
    shrunk = 1 + Z**2 / records
    middle = (share + Z**2 / (2 * records)) / shrunk
    half = Z * math.sqrt(share * (1 - share) / records + (Z / (2 * records)) ** 2) / shrunk
    return max(0.0, middle - half), min(1.0, middle + half)


def intervals(scored: Scored) -> dict[str, Interval]:
    """Metric -> where it lies, of all whose error is known."""
    found = {name: _interval(scored, name, value) for name, value in scored.metrics.items()}
    return {name: both for name, both in found.items() if all(map(math.isfinite, both))}


def _interval(scored: Scored, name: str, value: float) -> Interval:
    if name == "accuracy":
        return wilson(value, scored.records)
    if name == "perplexity" and "loss" in scored.metrics:
        low, high = _interval(scored, "loss", scored.metrics["loss"])
        return math.exp(min(low, 700.0)), math.exp(min(high, 700.0))
    half = Z * scored.errors.get(name, math.nan)
    low, high = value - half, value + half
    if name == "macro_f1" and math.isfinite(half):
        return max(0.0, low), min(1.0, high)
    if name == "loss":  # which is not below 0 where its mean is not
        return max(min(value, 0.0), low), high
    return low, high


def score_text(scored: Scored) -> str:
    """``accuracy 83.6 % (80.1 % to 86.6 %), loss 0.512 (...); n = 500``."""
    known = intervals(scored)

    def one(name: str, value: float) -> str:
        text = f"{name} {metric_text(name, value)}"
        if name not in known:
            return text
        low, high = (metric_text(name, end) for end in known[name])
        return f"{text} ({low} to {high})"

    words = ", ".join(one(name, value) for name, value in scored.metrics.items())
    return f"{words}; n = {scored.records:,}"
