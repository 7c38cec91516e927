"""Circumstances: what a certificate must say of a run besides its mechanism."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from silotune.terms import Terms


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """How a run was made, as far as epsilon does not cover it.

    Attributes:
        baselines: what was trained besides, without counting.
        limited: only some of the records were used, chosen by looking at all of them.
        dealt: records were dealt out to clients, which looks at all of them.
        composed: a column names the person of each record, so that costs of clients are composed.
        counted: public numbers that were taken from the data, as nobody declared them.
        recorded: what it charges is written into the silos' books for life.
        at_sites: clients are sites elsewhere, whose books and policies are their own.
    """

    baselines: tuple[str, ...] = ()
    limited: bool = False
    dealt: bool = False
    composed: bool = False
    counted: tuple[str, ...] = ()
    recorded: bool = True
    at_sites: bool = False


def counted(terms: Terms, declared: Mapping[str, object]) -> tuple[str, ...]:
    """The public numbers of records that nobody declared.

    Args:
        terms: say which numbers are public.
        declared: ``num_examples`` and ``num_held_out``, as given; None where nothing was.
    """
    numbers = ["num_examples"]
    if terms.privacy.metric_noise is not None:
        numbers.append("num_held_out")
    return tuple(name for name in numbers if declared[name] is None)


class Described(NamedTuple):
    """A run as it was described, to hold a certificate against.

    Attributes:
        terms: what was agreed.
        circumstances: how it was made.
        digest: SHA-256 of all that decides it.
        source: the file that says so.
        offered: SHA-256 of the terms as they are offered to sites.
    """

    terms: Terms
    circumstances: Circumstances
    digest: str
    source: str = "config.yaml"
    offered: str = ""
