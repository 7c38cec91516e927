"""Federated dataset: from a source to what every silo trains on and is measured by.

The order matters and is always this: labels become ids, the pool is divided (or silos come as they
are), empty records go, ``limit`` cuts, a part is held out, people are counted and forgotten. So the
size that a silo may declare is the length of its ``train`` table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from datasets import Dataset

from .columns import Columns, filled_rows, is_unlabelled, labels_in, readable
from .loading import Source, Tables
from .messages import listed
from .own_coins import own_coins
from .partition import Indices, Partition, drawn_rows, named_rows
from .persons import count_people, without_person
from .persons import notices as people_notices

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


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything a run reads.

    Attributes:
        silos: in order of their names.
        valid: records for everybody, outside the silos, to watch training by.
        test: the same, for the final figure.
        labels: the public label set in order of ids; empty for a task without.
        notices: sentences that a user should see.
    """

    silos: Mapping[str, ClientTables]
    valid: Dataset | None
    test: Dataset | None
    labels: tuple[str, ...]
    notices: tuple[str, ...]


def prepare_silos(
    source: Source,
    columns: Columns,
    silos: Partition,
    *,
    labels: Sequence[str] | None,
    evaluation: Evaluation,
    valid_fraction: float,
    limit: int | None,
    seed: int,
) -> Prepared:
    """Read labels, divide, clean, cut and hold out.

    Args:
        source: what was loaded.
        columns: where things are.
        silos: how to divide a pool; left at its default where silos come as folders.
        labels: the public label set; None: taken from the training data once, with a notice.
        evaluation: ``site`` holds out of every silo that has no valid table of its own;
            ``simulation`` does so unless the source has one for everybody; ``public`` never does.
        valid_fraction: the chance of each record to be held out; 0: nothing is.
        limit: the most records of each table of a silo; None: all.
        seed: of the run.

    Raises:
        ValueError: in words, naming the key of the configuration.
    """
    names, said_labels = _label_set(source, columns, labels)
    if source.silos:
        divided, said = _as_they_come(source, silos, columns, names)
    else:
        divided, said = _divided(source, silos, columns, names, seed)
    holds_out = evaluation == "site" or (evaluation == "simulation" and source.valid is None)
    fraction = valid_fraction if holds_out else 0.0
    ready = {
        name: _held_out(_limited(silo, limit, name, seed), fraction, name, seed)
        for name, silo in divided.items()
    }
    public = replace(columns, person=None)
    valid, said_valid = _for_all(source.valid, "valid", public, names)
    test, said_test = _for_all(source.test, "test", public, names)
    _check_measurable(ready, evaluation, valid is not None or test is not None)
    seen = evaluation == "simulation"
    said_people = () if columns.person is None else _said_people(ready, seen=seen)
    notices = (*source.notices, *said_labels, *(said if seen else ()), *said_valid, *said_test)
    return Prepared(
        silos={name: _forgotten(silo) for name, silo in ready.items()},
        valid=valid,
        test=test,
        labels=names,
        notices=(*notices, *said_people),
    )


def _said_people(silos: Mapping[str, ClientTables], *, seen: bool) -> tuple[str, ...]:
    """Notices of whose the records are; they are counted only where all are ``seen`` anyway."""
    people = count_people({name: silo.train for name, silo in silos.items()}) if seen else None
    return tuple(people_notices(people))


def _forgotten(silo: ClientTables) -> ClientTables:
    """Without a word of whose the records are."""
    valid = None if silo.valid is None else without_person(silo.valid)
    return replace(silo, train=without_person(silo.train), valid=valid)


def _label_set(
    source: Source, columns: Columns, labels: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The label set, and a notice if it comes from the data."""
    if columns.label is None:
        return (), ()
    trains = [t.train for t in source.silos.values()] if source.silos else [source.train]
    names = tuple(labels or labels_in(trains, columns.label, "the train table"))
    if len(names) < 2 or len(set(names)) < len(names):
        found = f", not: {listed(names)}" if labels else f"; the data has {len(names)}"
        raise ValueError(f"labels: needs two or more different labels{found}")
    notice = (
        f"labels: taken from the data once: {listed(names)}; write them into the "
        "configuration, because the label set is public"
    )
    return names, () if labels else (notice,)


def _as_they_come(
    source: Source, silos: Partition, columns: Columns, labels: Sequence[str]
) -> tuple[dict[str, ClientTables], tuple[str, ...]]:
    """Silos that are folders, and a notice of empty records."""
    if silos != Partition():
        raise ValueError("partition: the data has one folder a silo already; leave partition out")
    divided = {
        name: _from_folder(name, tables, columns, labels) for name, tables in source.silos.items()
    }
    return divided, _said_empty(sum(silo.empty for silo in divided.values()), "train")


def _from_folder(
    name: str, tables: Tables, columns: Columns, labels: Sequence[str]
) -> ClientTables:
    scored = replace(columns, person=None)

    def read(table: Dataset, role: str) -> Dataset:
        filled, _ = _filled(table, scored, labels, f"silo {name!r}, {role}")
        return filled

    train, empty = _filled(tables.train, columns, labels, f"silo {name!r}, train")
    return ClientTables(
        train=train,
        valid=None if tables.valid is None else read(tables.valid, "valid"),
        test=None if tables.test is None else read(tables.test, "test"),
        empty=empty,
    )


def _divided(
    source: Source, silos: Partition, columns: Columns, labels: Sequence[str], seed: int
) -> tuple[dict[str, ClientTables], tuple[str, ...]]:
    """Silos out of one pool, and notices of the records that are in none."""
    if (silos.by is None) == (silos.num is None):
        raise ValueError("partition: give either by: COLUMN or num: NUMBER")
    where = "the train table"
    pool = readable(source.train, columns, labels, where)
    filled = filled_rows(pool)
    said = _said_empty(len(pool) - len(filled), "train")
    if silos.by is not None:
        members = named_rows(source.train, silos.by, where)
        return {name: _among(pool, rows, filled, name) for name, rows in members.items()}, said
    pool = pool.select(filled)
    drawn = drawn_rows(pool, silos, seed)
    unused = len(pool) - sum(map(len, drawn.values()))
    notice = (
        f"split: {silos.split} leaves {unused} records out, so that silos are equal and "
        "their label mix is exact"
    )
    divided = {name: ClientTables(train=pool.select(rows)) for name, rows in drawn.items()}
    return divided, (*said, notice) if unused else said


def _among(pool: Dataset, rows: Indices, filled: Indices, name: str) -> ClientTables:
    kept = np.intersect1d(rows, filled)
    if len(kept) == 0:
        raise ValueError(f"data: silo {name!r} is empty: all its {len(rows)} records are blank")
    return ClientTables(train=pool.select(kept), empty=len(rows) - len(kept))


def _filled(
    table: Dataset, columns: Columns, labels: Sequence[str], where: str
) -> tuple[Dataset, int]:
    """A table made readable, without its empty records, and how many those were."""
    rows = readable(table, columns, labels, where)
    filled = rows.select(filled_rows(rows))
    if len(filled) == 0:
        raise ValueError(f"data: {where} is empty ({len(rows)} blank records)")
    return filled, len(rows) - len(filled)


def _said_empty(count: int, role: str) -> tuple[str, ...]:
    records = "record is" if count == 1 else "records are"
    notice = f"data: {count} empty {records} left out of {role}"
    return (notice,) if count else ()


def _for_all(
    table: Dataset | None, role: str, columns: Columns, labels: Sequence[str]
) -> tuple[Dataset | None, tuple[str, ...]]:
    """A table outside the silos, and notices of what was left out of it."""
    if table is None:
        return None, ()
    if columns.label is not None and is_unlabelled(table, columns.label):
        return None, (f"splits.{role}: all labels are -1, so it is not used",)
    filled, empty = _filled(table, columns, labels, f"the {role} table")
    return filled, _said_empty(empty, role)


def _limited(silo: ClientTables, limit: int | None, name: str, seed: int) -> ClientTables:
    """At most ``limit`` records a table: those of the lowest coins, because files are sorted."""
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


def _held_out(silo: ClientTables, fraction: float, name: str, seed: int) -> ClientTables:
    """A part of ``train`` becomes ``valid``, record by record, unless the silo has one."""
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


def _check_measurable(
    silos: Mapping[str, ClientTables], evaluation: Evaluation, has_public: bool
) -> None:
    """See that there is something to measure by."""
    if evaluation == "public" and not has_public:
        raise ValueError(
            "evaluation: public needs records that everybody may see; name a valid or test part "
            "in splits, or choose site or simulation"
        )
    needs_own = evaluation == "site" or (evaluation == "simulation" and not has_public)
    if needs_own and all(silo.valid is None for silo in silos.values()):
        raise ValueError(
            f"evaluation: {evaluation} needs held-out records, and {listed(silos)} has none; raise "
            "valid_fraction or give a valid part"
        )
