"""Part: one thing that an audit looked at."""

from __future__ import annotations

from dataclasses import dataclass

from silotune.audit.step import Verdict


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing that was looked at.

    Attributes:
        what: its name.
        verdict: of this part.
        text: what was done and found.
        claimed: epsilon that must not be exceeded; None where the part is no attack.
        measured: a lower bound on it that holds with 99 % confidence.
        delta: of both.
        decides: whether the audit has no power if this part has none.
    """

    what: str
    verdict: Verdict
    text: str
    claimed: float | None = None
    measured: float | None = None
    delta: float | None = None
    decides: bool = False
