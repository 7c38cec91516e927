"""Circumstances: what a certificate must say of a run besides its mechanism."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from silotune.data.persons import People
from silotune.terms import Terms


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """How a run was made, as far as epsilon does not cover it.

    Attributes:
        baselines: what was trained besides, without counting.
        limited: only some of the records were used, drawn by looking at all of them.
        dealt: records were dealt out to clients, which looks at all of them.
        composed: a column names the person of each record, so that costs of clients are composed.
        recorded: what it charges is written into the silos' books for life.
        people: whose the records are, as counted in a simulation.
    """

    baselines: tuple[str, ...] = ()
    limited: bool = False
    dealt: bool = False
    composed: bool = False
    recorded: bool = True
    people: People | None = None


class Described(NamedTuple):
    """A run as it was described, to hold a certificate against.

    Attributes:
        terms: what was agreed.
        circumstances: how it was made.
        digest: SHA-256 of all that decides it.
        source: the file that says so.
    """

    terms: Terms
    circumstances: Circumstances
    digest: str
    source: str = "config.yaml"
