"""Client tables: what one silo trains on and is scored by; what is cut off and held out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from datasets import Dataset

from .messages import listed
from .own_coins import own_coins

Evaluation = Literal["public", "site", "simulation"]


@dataclass(frozen=True, kw_only=True)
class ClientTables:
    """Readable tables of one silo, without empty records.

    Attributes:
        train: what it trains on.
        valid: its own, or held out of its training records; None where nothing is held out.
        test: its own; None if there is none.
        empty: how many of its training records were left out as empty.
    """

    train: Dataset
    valid: Dataset | None = None
    test: Dataset | None = None
    empty: int = 0


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
        return table.select(np.sort(np.argsort(coins, kind="stable")[:limit]))

    return replace(
        silo,
        train=cut(silo.train, "train"),
        valid=None if silo.valid is None else cut(silo.valid, "valid"),
        test=None if silo.test is None else cut(silo.test, "test"),
    )


def held_out(silo: ClientTables, fraction: float, name: str, seed: int) -> ClientTables:
    """A part of ``train`` becomes ``valid``, record by record, unless the silo has one.

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
    if silo.valid is not None or fraction == 0:
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
        train=silo.train.select(np.flatnonzero(~held)),
        valid=silo.train.select(np.flatnonzero(held)),
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
    if needs_own and all(table is None for table in own):
        raise ValueError(
            f"evaluation: {evaluation} needs held-out records, and {listed(silos)} has none; raise "
            "valid_fraction or give a valid part"
        )
