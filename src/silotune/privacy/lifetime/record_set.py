"""A set of records, and how it is told again: by keyed digests of its records, and by its place.

A record is known by HMAC-SHA256 of its content under a secret of the book's own, cut to 64 bits:
whoever finds the book cannot try contents against it, and two records that fall together by chance
(one pair in 4e9 among 100,000 and 100,000 records) only make a set look larger than it is.

Sets meet in a record if both hold its digest, or if they come from the same declared place, since
there every record may be an edited one. So records that are added, removed, copied or moved are
known again, and so are those that are edited where they are. A set whose records are all edited
*and* moved is taken for a new one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Digests = npt.NDArray[np.uint64]
"""Sorted, each once, shape (records,)."""

MOST_GROUPS = 256
"""Different histories of records that are told apart; beyond it all records have all of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordSet:
    """The records that one silo trains on and holds out, as they were when a run began.

    Attributes:
        where: path or name that they were declared to come from; empty if nobody said.
        whose: the silo's name.
        digests: of the records, keyed; equal records have one.
    """

    where: str
    whose: str
    digests: Digests

    @cached_property
    def id(self) -> str:
        """A name for the set; two sets of the same records and place have the same."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:32]

    def to_bytes(self) -> bytes:
        """A line of JSON, and the digests."""
        head = {"version": 1, "where": self.where, "whose": self.whose}
        return json.dumps(head).encode() + b"\n" + self.digests.astype("<u8").tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> RecordSet:
        """The inverse of ``to_bytes``.

        Raises:
            ValueError: if it is none.
        """
        line, _, rest = content.partition(b"\n")
        head = json.loads(line)
        if head.pop("version") != 1:
            raise ValueError("of a newer version")
        return cls(**head, digests=np.frombuffer(rest, "<u8").astype(np.uint64))

    def shares_place(self, other: RecordSet) -> bool:
        """Whether both come from the same declared place."""
        return bool(self.where) and (self.where, self.whose) == (other.where, other.whose)

    def held_by(self, other: RecordSet) -> npt.NDArray[np.bool_]:
        """Which of these records the other set holds, shape (records,)."""
        if not len(other.digests):
            return np.zeros(len(self.digests), dtype=np.bool_)
        at = np.searchsorted(other.digests, self.digests)
        found = other.digests[np.minimum(at, len(other.digests) - 1)] == self.digests
        return np.asarray(found)


def keyed(contents: Iterable[bytes], key: bytes) -> Digests:
    """The digests of records, by what they say.

    Args:
        contents: of each record, in any order.
        key: the book's secret.
    """
    cut = b"".join(hmac.digest(key, content, "sha256")[:8] for content in contents)
    return np.unique(np.frombuffer(cut, "<u8").astype(np.uint64))


def histories(mine: RecordSet, known: Mapping[str, RecordSet]) -> list[frozenset[str]]:
    """The sets, by name, that one record of ``mine`` may have been in: the largest such groups.

    Args:
        mine: whose records are asked about; it is in every group.
        known: by name; ``mine`` may be among them.
    """
    others = {name: other for name, other in known.items() if name != mine.id}
    placed = {name for name, other in others.items() if mine.shares_place(other)} | {mine.id}
    seen = {name: mine.held_by(other) for name, other in others.items() if name not in placed}
    seen = {name: mask for name, mask in seen.items() if mask.any()}
    if not seen:
        return [frozenset(placed)]
    names = list(seen)
    packed = np.packbits(np.stack([seen[name] for name in names], axis=1), axis=1)
    rows = np.unpackbits(np.unique(packed, axis=0), axis=1, count=len(names)).astype(bool)
    if len(rows) > MOST_GROUPS:
        return [frozenset(placed | seen.keys())]
    return _largest([placed | {n for n, held in zip(names, r, strict=True) if held} for r in rows])


def _largest(groups: Sequence[set[str]]) -> list[frozenset[str]]:
    """Those that no other contains."""
    return [frozenset(group) for group in groups if not any(group < other for other in groups)]
