"""Client tables: what one silo trains on and is scored by; what is cut off and held out of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from datasets import Dataset

from .messages import listed
from .own_coins import own_coins
from .unmarked import rows_of

Evaluation = Literal["public", "site", "simulation"]


@dataclass(frozen=True, kw_only=True)
class ClientTables:
    """Readable tables of one silo, without empty records.

    Attributes:
        train: what it trains on.
        valid: its own, or held out of its training records; None where nothing is held out.
        test: its own; None if there is none.
        left_out: part that the silo came with -> how many of its records were left out, as empty or
            without a label. Perhaps all of them: then the silo has the part, and no table of it.
    """

    train: Dataset
    valid: Dataset | None = None
    test: Dataset | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)


def limited(silo: ClientTables, limit: int | None, name: str, seed: int) -> ClientTables:
    """At most ``limit`` records a table: those of the lowest coins, because files are sorted.

    Args:
        silo: its tables.
        limit: None for all.
        name: of the silo.
        seed: of the run.

    Raises:
        ValueError: if it is below 1.
    """
    if limit is None:
        return silo
    if limit < 1:
        raise ValueError(f"limit: {limit} must be at least 1")

    def cut(table: Dataset, role: str) -> Dataset:
        coins = own_coins(table, seed, f"limit {role}", name)
        return rows_of(table, np.sort(np.argsort(coins, kind="stable")[:limit]))

    return replace(
        silo,
        train=cut(silo.train, "train"),
        valid=None if silo.valid is None else cut(silo.valid, "valid"),
        test=None if silo.test is None else cut(silo.test, "test"),
    )


def held_out(silo: ClientTables, fraction: float, name: str, seed: int) -> ClientTables:
    """A part of ``train`` becomes ``valid``, record by record, unless the silo came with one.

    Also if nothing of that can be used: or a single record in it would decide for many others
    whether they are trained on.

    Args:
        silo: its tables.
        fraction: the chance of each record.
        name: of the silo.
        seed: of the run.

    Raises:
        ValueError: if nothing would be left to train on.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"valid_fraction: {fraction} must be at least 0 and below 1")
    if "valid" in silo.left_out or fraction == 0:
        return silo
    held = own_coins(silo.train, seed, "hold out", name) < fraction
    if not held.any():  # a small silo may train on all it has, and is not scored
        return silo
    if held.all():
        raise ValueError(
            f"valid_fraction: at {fraction:g} every record of silo {name!r} would be held out; "
            "lower it, or give the silo a valid part"
        )
    return replace(
        silo,
        train=rows_of(silo.train, np.flatnonzero(~held)),
        valid=rows_of(silo.train, np.flatnonzero(held)),
    )


def check_measurable(
    silos: Mapping[str, ClientTables], evaluation: Evaluation, has_public: bool
) -> None:
    """See that there is something to measure by.

    Args:
        silos: by name.
        evaluation: who scores.
        has_public: whether there are records for everybody.

    Raises:
        ValueError: saying what would be something.
    """
    if evaluation == "public" and not has_public:
        raise ValueError(
            "evaluation: public needs records that everybody may see; name a valid or test part "
            "in splits, or choose site or simulation"
        )
    own = [silo.valid for silo in silos.values()]
    if evaluation == "simulation":  # the final records may be looked at before
        own += [silo.test for silo in silos.values()]
    needs_own = evaluation == "site" or (evaluation == "simulation" and not has_public)
    if needs_own and silos and all(table is None for table in own):
        has_part = any("valid" in silo.left_out for silo in silos.values())
        cure = "put some into their valid part, or take it away" if has_part else ""
        raise ValueError(
            f"evaluation: {evaluation} needs held-out records, and {listed(silos)} has none; "
            f"{cure or 'raise valid_fraction or give a valid part'}"
        )


def left_out_notices(silos: Mapping[str, ClientTables]) -> Iterator[str]:
    """What was left out of the silos' parts, in sentences for those who may see all of them.

    Args:
        silos: by name; or one alone, for itself.
    """
    for part in ("train", "valid", "test"):
        counts = {name: s.left_out[part] for name, s in silos.items() if part in s.left_out}
        if text := empty_notice(sum(counts.values()), part):
            yield text
        bare = [f"{s} ({n} left out)" for s, n in counts.items() if getattr(silos[s], part) is None]
        if bare:
            instead = ", and nothing is held out instead" if part == "valid" else ""
            yield (
                f"splits.{part}: no record can be used at {listed(bare)}: not scored there{instead}"
            )


def empty_notice(count: int, part: str) -> str | None:
    """A sentence about so many records that were left out of a part, if there are any."""
    records = "record is" if count == 1 else "records are"
    text = f"data: {count} {records} empty or without a label, and left out of {part}"
    return text if count else None
