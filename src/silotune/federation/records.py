"""Records: what one machine owns, and how it is divided among clients. Private; never agreed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypeGuard

from annotated_types import Ge, Lt
from datasets import ClassLabel, Dataset, DatasetDict

from silotune.core.fields import check_value
from silotune.core.names import LONGEST_NAME, is_client_name
from silotune.data import Partition, Source, Splits, Tables, load
from silotune.data.delimited import check_delimiter
from silotune.data.encodings import check_encoding
from silotune.data.formats import FileOptions
from silotune.data.given import Table, check_table, filled_table_of, table_of
from silotune.data.labels import LabelMap
from silotune.data.partition import check_apart, named_rows
from silotune.privacy import check_declared

from .sites import Sites

ClientData: TypeAlias = Table | DatasetDict | Mapping[str, Table]
"""A table to train on, or several by part: ``train``, ``valid`` (or ``validation``), ``test``."""

IN_MEMORY = "in memory"
"""Where tables come from that are objects; of them only the client's name is declared."""

_PART = {
    "train": "train",
    "valid": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
}
"""What the parts of a client's data are called -> what they are for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Records:
    """Where the records are, whose they are, and what is declared of them.

    Attributes:
        clients: tables by client; or a hub name, file or folder that ``partition`` divides, or
            that has one folder a client; or the names of sites, whose records this machine never
            sees.
        name: configuration of a hub data set.
        delimiter: between the columns of csv and tsv files; None: a comma, or a tab.
        encoding: of text files, as Python calls it; None: UTF-8.
        sheet: of xlsx files, by its name; None: the only one that holds something.
        label_map: what these records call a label -> its name in the label set; None: records with
            it have no label, and are left out.
        splits: which part of a path is for what.
        partition: how one pool becomes clients.
        valid: records for everybody, to watch training by; beside tables by client only.
        test: the same, for the final figure.
        num_examples: public number of training records that each client declares; None = rounded
            down from the data once, with a notice, from 200 records on (or the real one, without
            privacy).
        num_held_out: the same of held-out records, where noisy scores are released.
        valid_fraction: chance of each record to be held out, where nothing else is; its own
            content decides.
        person: column that names the person of each record; it is not learned from.
        limit: use at most this many records of each client.

    Raises:
        ValueError: naming the field, if one is out of range or a client cannot have a folder.
    """

    clients: str | Path | Mapping[str, ClientData] | Sites
    name: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    label_map: LabelMap = field(default_factory=dict)
    splits: Splits = field(default_factory=Splits)
    partition: Partition = field(default_factory=Partition)
    valid: Table | None = None
    test: Table | None = None
    num_examples: int | Mapping[str, int] | None = None
    num_held_out: int | Mapping[str, int] | None = None
    valid_fraction: float = 0.1
    person: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.clients, str | Path | Mapping | Sites):
            raise ValueError(
                "clients: give {client: table}, or a name, file or folder, not "
                f"{type(self.clients).__name__}; a pool in memory is divided beforehand"
            )
        self._check_numbers()
        if isinstance(self.clients, Sites):
            self._check_sites()
            return
        if not isinstance(self.clients, Mapping):
            for part in ("valid", "test"):
                if getattr(self, part) is not None:
                    raise ValueError(
                        f"{part}: a path names its parts by splits; give tables by client to add "
                        "another"
                    )
            return
        if not self.clients:
            raise ValueError("clients: there is none; give a table for each, by name")
        if self.partition != Partition():
            raise ValueError("partition: is for one pool of records; these are divided already")
        for client, data in self.clients.items():
            check_client_name(client)
            if _is_parts(data):
                _check_parts(client, data)
            else:
                check_table(data, f"clients: client {client}")
        for part, table in (("valid", self.valid), ("test", self.test)):
            if table is not None:
                check_table(table, part)
        check_apart(self.clients, "clients")

    def _check_sites(self) -> None:
        """Of records elsewhere nothing is said here but what may be seen by all."""
        usual = Records(clients=".")
        for name in ("name", "splits", "partition", "label_map", "person", "limit"):
            if getattr(self, name) != getattr(usual, name):
                raise ValueError(
                    f"{name}: is of a site's own records, and said there; leave it out"
                )
        for part, table in (("valid", self.valid), ("test", self.test)):
            if table is not None:
                check_table(table, part)

    def _check_numbers(self) -> None:
        check_value("valid_fraction", Annotated[float, Ge(0), Lt(1)], self.valid_fraction)
        check_value("limit", Annotated[int, Ge(1)] | None, self.limit)
        check_delimiter(self.delimiter)
        check_encoding(self.encoding)
        check_value("sheet", str | None, self.sheet)
        check_value("label_map", dict[str, str | None], self.label_map)
        clients = self.clients if isinstance(self.clients, Mapping) else self.elsewhere or None
        check_declared("num_examples", self.num_examples, clients)
        check_declared("num_held_out", self.num_held_out, clients)

    @property
    def in_memory(self) -> bool:
        """Whether some tables are objects, which another process does not have."""
        if isinstance(self.clients, str | Path):
            return False
        beside = [table for table in (self.valid, self.test) if table is not None]
        own = self.clients.values() if isinstance(self.clients, Mapping) else ()
        parts = [*own, *beside]
        tables = [t for part in parts for t in (part.values() if _is_parts(part) else [part])]
        return not all(isinstance(table, str | Path) for table in tables)

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """The sites that have them; empty if this machine has."""
        return self.clients.names if isinstance(self.clients, Sites) else ()

    @property
    def place(self) -> str:
        """For people: the path, or how many tables or sites there are."""
        if isinstance(self.clients, Sites):
            return f"{len(self.clients.names)} sites"
        if isinstance(self.clients, Mapping):
            return f"{len(self.clients)} tables"
        return str(self.clients)

    @property
    def at_hand(self) -> bool:
        """Whether the records are on this machine: in memory, or a file or folder that is there."""
        if not isinstance(self.clients, str | Path):
            return isinstance(self.clients, Mapping)
        return str(self.clients).startswith("demo:") or Path(self.clients).expanduser().exists()

    def client_names(self) -> list[str]:
        """The clients that the data have, in order; of the records only their names are looked at.

        Raises:
            ValueError: in words, if the data cannot be read or a record names no client.
        """
        if isinstance(self.clients, Sites):
            return list(self.clients.names)
        if isinstance(self.clients, Mapping):
            return sorted(self.clients)
        source, by = self.source(image=None), self.partition.by
        if source.train is None or by is None:
            return list(source.silos)
        return list(named_rows(source.train, by, "the train table"))

    def place_of(self, client: str) -> str:
        """Where the records of a client are declared to come from, the same from any folder."""
        whole = self.clients
        assert not isinstance(whole, Sites), "a site knows where its records are, and nobody else"
        data = whole[client] if isinstance(whole, Mapping) else whole
        data = data["train"] if _is_parts(data) else data
        if not isinstance(data, str | Path):
            return IN_MEMORY
        if not Path(data).exists():  # a name
            return f"{data} {self.name}" if self.name else str(data)
        return str(Path(data).resolve())

    @property
    def dealt(self) -> bool:
        """Whether records were dealt out to clients, which looks at all of them."""
        return self.partition.num is not None

    def file_options(self, image: str | None) -> FileOptions:
        """How its files are read.

        Args:
            image: the column that may hold image paths.
        """
        return FileOptions(
            image=image, delimiter=self.delimiter, encoding=self.encoding, sheet=self.sheet
        )

    def source(self, image: str | None) -> Source:
        """Everything there is, opened.

        Args:
            image: the column that may hold image paths.

        Raises:
            ValueError: in words, if something cannot be read, or two clients have other columns or
                other labels.
        """
        files = self.file_options(image)
        if isinstance(self.clients, Sites):
            return Source(valid=self._beside("valid", files), test=self._beside("test", files))
        if not isinstance(self.clients, Mapping):
            return load(str(self.clients), self.name, self.splits, files)
        silos = {name: _tables(name, data, files) for name, data in sorted(self.clients.items())}
        _check_alike({name: tables.train for name, tables in silos.items()})
        return Source(
            silos=silos, valid=self._beside("valid", files), test=self._beside("test", files)
        )

    def _beside(self, part: Literal["valid", "test"], files: FileOptions) -> Dataset | None:
        """A table for everybody."""
        table = self.valid if part == "valid" else self.test
        return None if table is None else table_of(table, part, files)


def check_client_name(name: object) -> None:
    """See that a client can have a folder of its name.

    Raises:
        ValueError: if it cannot.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"clients: a client has a name, as text; {name!r} is none")
    if not is_client_name(name):
        raise ValueError(
            f"clients: {name[:40]!r} cannot be the name of a folder; take letters, digits, - and "
            f"_, at most {LONGEST_NAME} bytes of them"
        )


def _is_parts(data: object) -> TypeGuard[Mapping[str, Table]]:
    """Whether a client's data are several tables, by part."""
    return isinstance(data, Mapping)


def _tables(client: str, data: ClientData, files: FileOptions) -> Tables:
    where = f"clients: client {client}"
    parts = data if _is_parts(data) else {"train": data}
    own = {_PART[part]: table for part, table in parts.items()}
    train = filled_table_of(own.pop("train"), where, files)
    beside = {part: table_of(table, f"{where}, {part}", files) for part, table in own.items()}
    return Tables(train=train, **beside)


def _check_parts(client: str, data: Mapping[str, Table]) -> None:
    """That a client's parts are tables, and named by what they are for, each once.

    Raises:
        ValueError: if they are not.
    """
    if strange := sorted(str(part) for part in data if part not in _PART):
        raise ValueError(
            f"clients: {client} has a part {strange[0]}; name its parts train, valid and test"
        )
    parts = [_PART[part] for part in data]
    if "train" not in parts:
        raise ValueError(f"clients: {client} has no part train to learn from")
    if len(set(parts)) < len(parts):
        raise ValueError(f"clients: {client} has a part valid twice; leave one out")
    for part, table in data.items():
        check_table(table, f"clients: client {client}, {_PART[part]}")


def _check_alike(tables: Mapping[str, Dataset]) -> None:
    """Two clients with other columns, or other label sets, are not one federation."""
    first, *others = tables
    for name in others:
        differ = set(tables[name].column_names) ^ set(tables[first].column_names)
        if differ:
            raise ValueError(
                f"clients: {first} and {name} have other columns: {', '.join(sorted(differ))} is "
                "not in both; give them the same"
            )
    for column in tables[first].column_names:
        sets = {
            name: tuple(feature.names)
            for name, table in tables.items()
            if isinstance(feature := table.features[column], ClassLabel)
        }
        for name, names in sets.items():
            if names != sets.get(first, names):
                raise ValueError(
                    f"clients: {first} and {name} have other labels in {column}; cast them to one "
                    "set, so that an id means the same everywhere"
                )
