"""Federated dataset: from a source to what every silo trains on and is measured by.

The order matters and is always this: labels become ids, the pool is divided (or silos come as they
are), tables beside it that name silos are theirs, empty records go, ``limit`` cuts, a part is held
out, people are counted and forgotten. So the size that a silo may declare is the length of its
``train`` table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset

from silotune.objectives.task import Target

from .client_tables import (
    ClientTables,
    Evaluation,
    check_measurable,
    empty_notice,
    held_out,
    limited,
)
from .columns import Columns, filled_rows, require_kind
from .labels import AS_THEY_ARE, LabelMap, check_names, is_unlabelled
from .loading import Source, Tables
from .messages import listed
from .partition import Indices, Partition, check_apart, drawn_rows, named_rows
from .persons import count_people, without_person
from .persons import notices as people_notices
from .table_reader import TableReader
from .targets import Range, label_names
from .unmarked import rows_of

_POOL = "the train table"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything a run reads.

    Attributes:
        silos: in order of their names.
        valid: records for everybody, outside the silos, to watch training by.
        test: the same, for the final figure.
        labels: the public label set in order of ids; empty for a task without.
        notices: sentences that a user should see; what was left out of the silos' tables is not
            among them, as it is for themselves or a simulation (``left_out_notices``).
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
    label_map: LabelMap = AS_THEY_ARE,
    target: Target = "label",
    within: Range = None,
    scored: bool = True,
) -> Prepared:
    """Read labels, divide, clean, cut and hold out.

    Args:
        source: what was loaded.
        columns: where things are.
        silos: how to divide a pool; left at its default where silos come as folders.
        labels: the public label set; None: taken from the training data once, with a notice.
        evaluation: ``site`` holds out of every silo that has no valid table of its own;
            ``simulation`` does so unless the source has one for everybody; ``public`` never does,
            and takes every table beside the silos for one that everybody may see.
        valid_fraction: the chance of each record to be held out; 0: nothing is.
        limit: the most records of each table of a silo; None: all.
        seed: of the run.
        label_map: what the data call a label -> what it is called here; None: no label.
        target: what is learned.
        within: the lowest and the highest number that is learned, where they are declared.
        scored: whether there must be something to measure by.

    Raises:
        ValueError: in words, naming the key of the configuration.
    """
    names, said_labels = _label_set(source, columns, labels, label_map, target)
    if target == "label" and columns.labels:
        check_names(_by_name(source), columns.labels[0], names, label_map)
    reader = TableReader(
        columns=columns, labels=names, label_map=label_map, target=target, within=within
    )
    said = _said_unused(source, evaluation)
    if source.is_beside:
        divided: dict[str, ClientTables] = {}
    elif source.silos:
        divided = _as_they_come(source, silos, reader)
    elif silos.by is not None and silos.num is None:
        divided = _by_column(source.train, silos.by, reader)
    else:
        divided, unused = _dealt(source.train, silos, reader, seed)
        said = unused if evaluation == "simulation" else ()
    beside = {"valid": source.valid, "test": source.test}
    if silos.by is not None and evaluation != "public":
        divided = _with_named(divided, beside, silos.by, reader.scored())
        beside = {part: t for part, t in beside.items() if not _names_silos(t, silos.by)}
    valid, said_valid = _for_all(beside.get("valid"), "valid", reader.scored())
    test, said_test = _for_all(beside.get("test"), "test", reader.scored())
    holds_out = evaluation == "site" or (evaluation == "simulation" and valid is None)
    fraction = valid_fraction if holds_out else 0.0
    ready = {
        name: held_out(limited(silo, limit, name, seed), fraction, name, seed)
        for name, silo in divided.items()
    }
    if scored:
        check_measurable(ready, evaluation, valid is not None or test is not None)
    seen = evaluation == "simulation"
    said_people = () if columns.person is None else _said_people(ready, seen=seen)
    notices = (*source.notices, *said_labels, *said, *said_valid, *said_test)
    return Prepared(
        silos={name: _forgotten(silo) for name, silo in ready.items()},
        valid=valid,
        test=test,
        labels=names,
        notices=(*notices, *said_people),
    )


def _by_name(source: Source) -> dict[str, Dataset]:
    """All tables, by what they are called in an error."""
    beside = {"train": source.train, "valid": source.valid, "test": source.test}
    found = {f"the {part} table": table for part, table in beside.items()}
    for name, own in source.silos.items():
        found |= {f"silo {name!r}, {part}": getattr(own, part) for part in beside}
    return {where: table for where, table in found.items() if table is not None}


def _said_people(silos: Mapping[str, ClientTables], *, seen: bool) -> tuple[str, ...]:
    """Notices of whose the records are; they are counted only where all are ``seen`` anyway."""
    people = count_people({name: silo.train for name, silo in silos.items()}) if seen else None
    return tuple(people_notices(people))


def _forgotten(silo: ClientTables) -> ClientTables:
    """Without a word of whose the records are."""
    valid = None if silo.valid is None else without_person(silo.valid)
    return replace(silo, train=without_person(silo.train), valid=valid)


def _label_set(
    source: Source,
    columns: Columns,
    labels: Sequence[str] | None,
    label_map: LabelMap,
    target: Target,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The label set, and a notice if it comes from the data."""
    marked = (columns.label, columns.tags, columns.spans)
    if target == "score" or marked == (None, None, None):
        return (), ()
    if labels is not None:
        return _checked(labels, 1 if target == "numbers" else 2), ()
    if columns.label is None:
        raise ValueError("labels: must be given, as tags and spans do not tell them; list them")
    where = "the train table"
    trains = [t.train for t in source.silos.values()] if source.silos else [source.train]
    filled = [table for table in trains if table is not None and len(table)]
    for table in filled:
        require_kind(table, columns.labels, "label", where, target)
    names = label_names(filled, columns.labels[0], where, label_map, target)
    if len(names) < 2:
        raise ValueError(f"labels: needs two or more different labels; the data has {len(names)}")
    notice = (
        f"labels: taken from the data once: {listed(names)}; write them into the "
        "configuration, because the label set is public"
    )
    return names, (notice,)


def _checked(labels: Sequence[str], fewest: int) -> tuple[str, ...]:
    if len(labels) < fewest or len(set(labels)) < len(labels):
        raise ValueError(f"labels: needs two or more different labels, not: {listed(labels)}")
    return tuple(labels)


def _said_unused(source: Source, evaluation: Evaluation) -> tuple[str, ...]:
    """A notice of parts that silos came with and nobody looks at."""
    own = [part for t in source.silos.values() for part in (t.valid, t.test) if part is not None]
    notice = "splits: with evaluation: public, the silos' own valid and test parts are not used"
    return (notice,) if own and evaluation == "public" else ()


def _as_they_come(source: Source, silos: Partition, reader: TableReader) -> dict[str, ClientTables]:
    """Silos that are folders."""
    if silos != Partition():
        raise ValueError(
            "partition: the data have a folder or a file for each silo already; leave it out"
        )
    check_apart(source.silos, "clients")
    return {name: _from_folder(name, tables, reader) for name, tables in source.silos.items()}


def _from_folder(name: str, tables: Tables, reader: TableReader) -> ClientTables:
    where = f"silo {name!r}"
    train, empty = reader.filled(tables.train, f"{where}, train")
    if train is None:
        raise ValueError(f"data: {where}, train is empty ({empty} blank records)")
    own = {
        part: reader.scored().filled(table, f"{where}, {part}")
        for part, table in (("valid", tables.valid), ("test", tables.test))
        if table is not None
    }
    return ClientTables(
        train=train,
        left_out={"train": empty, **{part: empty for part, (_, empty) in own.items()}},
        **{part: table for part, (table, _) in own.items()},
    )


def _pool(table: Dataset | None, reader: TableReader) -> tuple[Dataset, Indices]:
    """The readable train table, and the rows of it that are not empty."""
    assert table is not None
    if len(table) == 0:
        raise ValueError(f"data: {_POOL} is empty")
    pool = reader.read(table, _POOL)
    return pool, filled_rows(pool)


def _by_column(table: Dataset | None, by: str, reader: TableReader) -> dict[str, ClientTables]:
    """Silos that a column of one pool names."""
    pool, filled = _pool(table, reader)
    assert table is not None
    members = named_rows(table, by, _POOL)
    kept = _among(members, filled, len(pool))
    if empty := [name for name, rows in kept.items() if len(rows) == 0]:
        name = empty[0]
        raise ValueError(
            f"data: silo {name!r} is empty: all its {len(members[name])} records are blank"
        )
    return {
        name: ClientTables(
            train=rows_of(pool, rows), left_out={"train": len(members[name]) - len(rows)}
        )
        for name, rows in kept.items()
    }


def _dealt(
    table: Dataset | None, silos: Partition, reader: TableReader, seed: int
) -> tuple[dict[str, ClientTables], tuple[str, ...]]:
    """Silos that one pool is dealt out to, and notices of the records that are in none."""
    if silos.by is not None or silos.num is None:
        raise ValueError("partition: give either by: COLUMN or num: NUMBER")
    pool, filled = _pool(table, reader)
    empty = empty_notice(len(pool) - len(filled), "train")
    pool = rows_of(pool, filled)
    drawn = drawn_rows(pool, silos, seed)
    unused = len(pool) - sum(map(len, drawn.values()))
    over = (
        f"split: {silos.split} leaves {unused} records out, so that silos are equal and "
        "their label mix is exact"
    )
    divided = {name: ClientTables(train=rows_of(pool, rows)) for name, rows in drawn.items()}
    return divided, tuple(filter(None, (empty, over if unused else None)))


def _among(members: Mapping[str, Indices], filled: Indices, records: int) -> dict[str, Indices]:
    """Of each silo's rows, those that are filled; looked up in a mask, which all silos share.

    Args:
        members: rows by silo, each once.
        filled: rows that hold something.
        records: of the whole table.
    """
    holds = np.zeros(records, dtype=bool)
    holds[filled] = True
    return {name: rows[holds[rows]] for name, rows in members.items()}


def _names_silos(table: Dataset | None, by: str) -> bool:
    """Whether a table beside the silos says whose its records are."""
    return table is not None and by in table.column_names


def _with_named(
    silos: Mapping[str, ClientTables],
    beside: Mapping[str, Dataset | None],
    by: str,
    reader: TableReader,
) -> dict[str, ClientTables]:
    """Silos with what tables beside them have of each, where these say whose their records are.

    A silo then has the part, also if none of its records is a silo's.
    """
    found, nobodys = dict(silos), np.array([], dtype=np.int64)
    for part, table in beside.items():
        if table is None or not _names_silos(table, by):
            continue
        where = f"the {part} table"
        members = named_rows(table, by, where)
        pool = reader.read(table, where) if len(table) else table
        kept = _among(members, filled_rows(pool), len(pool))
        if any(len(rows) and name not in silos for name, rows in kept.items()):
            raise ValueError(
                f"by: {where} has records of a silo that has none to train on; leave them out, "
                f"or the column {by!r} if they are for everybody"
            )
        for name, silo in found.items():
            rows = kept.get(name, nobodys)
            left_out = len(members.get(name, nobodys)) - len(rows)
            own = {part: rows_of(pool, rows) if len(rows) else None}
            found[name] = replace(silo, **own, left_out={**silo.left_out, part: left_out})
    return found


def _for_all(
    table: Dataset | None, role: str, reader: TableReader
) -> tuple[Dataset | None, tuple[str, ...]]:
    """A table outside the silos, and notices of what was left out of it."""
    if table is None:
        return None, ()
    label = reader.columns.labels
    if reader.target == "label" and label and is_unlabelled(table, label[0]):
        return None, (f"splits.{role}: all labels are -1, so it is not used",)
    filled, empty = reader.filled(table, f"the {role} table")
    if filled is None:
        return None, (f"splits.{role}: no record of it can be used, so it is not used",)
    return filled, tuple(filter(None, [empty_notice(empty, role)]))
