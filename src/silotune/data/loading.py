"""Loading: from what ``clients`` names to tables.

Local files are read straight into memory, without a cache and without the network. Whatever the
source, its parts have names (file stems, hub splits, or the values of a column ``split`` in a
single table), and ``splits`` says which of them are train, valid and test.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets import Dataset

from .demo import triage
from .files import FORMATS, part_name, read_file
from .messages import did_you_mean, listed

_QUOTING = (pa.ArrowException, UnicodeError, datasets.exceptions.DatasetGenerationError)
"""Errors of reading records, whose words may quote them."""

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")

_USUAL = {
    "train": ("train",),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "test_labeled"),
}

_COMMON = {name for names in _USUAL.values() for name in names}


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Names of the parts to use. None named: the usual names. Any named: those, and train."""

    train: str | None = None
    valid: str | None = None
    test: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The records of one silo."""

    train: Dataset
    valid: Dataset | None = None
    test: Dataset | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a path holds: either one ``train`` table, to be divided, or ``silos`` as they are.

    Attributes:
        train: records of all silos together, or None.
        silos: tables by silo, in order of names; empty if there is ``train``.
        valid: records for everybody, beside the silos.
        test: records for everybody, beside the silos.
        notices: sentences that a user should see.
    """

    train: Dataset | None = None
    silos: Mapping[str, Tables] = field(default_factory=dict)
    valid: Dataset | None = None
    test: Dataset | None = None
    notices: tuple[str, ...] = ()


def load(
    path: str, name: str | None = None, splits: Splits | None = None, image: str | None = None
) -> Source:
    """Read a demo, a file, a folder or a hub data set.

    Folders are: files named by part (``train.parquet``; ``train-00000-of-00002.parquet`` and its
    like are joined), one folder a silo (``<site>/train.jsonl``, with tables for everybody beside
    them), or images (``<class>/*.png`` or ``train/<class>/*.png``, giving columns ``image`` and
    ``label``).

    Args:
        path: ``clients``.
        name: ``name``, the configuration of a hub data set; local data has none.
        splits: ``splits``.
        image: the column that may hold image paths; relative ones count from their own file.

    Raises:
        ValueError: if there is nothing there that can be read, in words.
    """
    splits = splits or Splits()
    if path.startswith("demo:"):
        return _single(_demo(path), path, splits)
    place = Path(path).expanduser()
    if place.is_file():
        return _single(read_file(place, image), place.name, splits)
    if place.is_dir():
        return _folder(place, splits, image)
    is_file_name = part_name(place.name) != place.name
    if is_file_name or path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ValueError(f"clients: there is no file or folder {path}")
    parts = _hub(path, name)
    return _pooled(parts, lambda part: parts[part], path, splits)


def table_of(
    table: Dataset | Sequence[Mapping[str, Any]] | str | Path, where: str, image: str | None = None
) -> Dataset:
    """A table that somebody gives: a data set, a list of records, or a file or folder of one.

    Args:
        table: as given.
        where: the field, and whose it is, for messages.
        image: the column that may hold image paths.

    Raises:
        ValueError: if it is none of these, has no records, or a column of mixed types.
    """
    check_table(table, where)
    if isinstance(table, str | Path):
        source = load(str(table), image=image)
        if source.train is None:
            raise ValueError(f"{where}: {table} has a folder for each client itself")
        table = source.train
    elif not isinstance(table, Dataset):
        table = _of_records(table, where)
    if len(table) == 0:
        raise ValueError(f"{where}: has no records")
    return table


def check_table(table: object, where: str) -> None:
    """See that something is of the kind of a table; nothing is opened.

    Args:
        table: as given.
        where: the field, and whose it is, for messages.

    Raises:
        ValueError: naming its type only, because what it holds is private.
    """
    if isinstance(table, Dataset | str | Path):
        return
    if not isinstance(table, Sequence):
        found = type(table).__name__
    else:
        found = next((type(r).__name__ for r in table if not isinstance(r, Mapping)), "")
        found = found and f"{type(table).__name__} of {found}"
    if found:
        raise ValueError(
            f"{where}: give a datasets.Dataset, a list of dicts, a file or a folder, not {found}"
        )


def _of_records(records: Sequence[Mapping[str, Any]], where: str) -> Dataset:
    """A table of dicts; where Arrow cannot hold them, its own words would quote a value."""
    table = _held(records)
    if table is not None:
        return table
    alone = {name: [{name: record.get(name)} for record in records] for name in records[0]}
    column = next((f"column {name!r}" for name in alone if _held(alone[name]) is None), "a column")
    raise ValueError(
        f"{where}: {column} holds values of several types, or of one that no table holds; make "
        "them all text, or all numbers"
    )


def _held(records: Sequence[Mapping[str, Any]]) -> Dataset | None:
    """The records as a table, if their values have types that go together."""
    try:
        return Dataset.from_list([dict(record) for record in records])
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None


def _demo(path: str) -> Dataset:
    if path != "demo:triage":
        raise ValueError(f"clients: there is no {path}; the bundled data is demo:triage")
    return triage()


def _single(table: Dataset, where: str, splits: Splits) -> Source:
    """One table: divided by its column ``split``, if that has a value for the train part."""
    if "split" not in table.column_names:
        if splits.valid or splits.test:
            raise ValueError(
                f"splits: {where} is one table without a column 'split', so it has no parts"
            )
        return Source(train=table)
    values = [str(value) for value in table["split"]]
    names = set(values)
    if splits == Splits() and "train" not in names:
        return Source(train=table)

    def rows(part: str) -> Dataset:
        return table.select([row for row, value in enumerate(values) if value == part])

    place = f"the column 'split' of {where}"
    # What else the column holds is of records, and not told.
    chosen, _ = _choose(names, splits, place, shown=sorted(names & _COMMON))
    notice = f"splits: of {place} only these are used: {listed(sorted(chosen.values()))}"
    return Source(notices=(notice,), **{role: rows(part) for role, part in chosen.items()})


def _folder(place: Path, splits: Splits, image: str | None) -> Source:
    top = _files(place)
    inner = {folder.name: _files(folder) for folder in sorted(place.iterdir()) if folder.is_dir()}
    sites = {site: parts for site, parts in inner.items() if parts}
    has_train = part_name(splits.train or "train") in top
    if sites and not has_train:
        return _sites(sites, top, str(place), splits, image)
    if len(top) == 1 and not has_train:
        (only,) = top.values()
        return _single(_read(only, image), only[0].name, splits)
    if not top:
        return _images(place, splits)
    source = _pooled(top, lambda part: _read(top[part], image), str(place), splits)
    notice = f"clients: not used of {place}: the folders {listed(sites)}"
    return replace(source, notices=(*source.notices, notice)) if sites else source


def _sites(
    sites: Mapping[str, Mapping[str, list[Path]]],
    top: Mapping[str, list[Path]],
    where: str,
    splits: Splits,
    image: str | None,
) -> Source:
    """One folder a silo; tables beside the folders are for everybody."""
    silos: dict[str, Tables] = {}
    notices: list[str] = []
    for site, parts in sites.items():
        chosen, unused = _choose(parts, splits, f"{where}/{site}")
        silos[site] = Tables(**{role: _read(parts[p], image) for role, p in chosen.items()})
        notices += unused
    shared = {role: part for role, part in _usual(top).items() if role != "train"}
    tables = {role: _read(top[part], image) for role, part in shared.items()}
    return Source(silos=silos, notices=tuple(notices), **tables)


def _images(place: Path, splits: Splits) -> Source:
    """``<class>/*.png``, or the same inside ``train`` and other parts."""
    inner = [folder.name for folder in sorted(place.iterdir()) if folder.is_dir()]
    if (splits.train or "train") in inner:
        return _pooled(inner, lambda part: _labelled_images(place / part), str(place), splits)
    return _single(_labelled_images(place), str(place), splits)


def _labelled_images(place: Path) -> Dataset:
    files = sorted(f for f in place.glob("*/*") if f.suffix.lower() in IMAGES)
    if not files:
        raise ValueError(
            f"clients: {place} has neither data files ({listed(FORMATS)}), nor folders with "
            "train files, one a silo, nor folders with images, one a class"
        )
    labels = [file.parent.name for file in files]
    return Dataset.from_dict({"image": [str(f.resolve()) for f in files], "label": labels})


def _pooled(
    names: Collection[str], read: Callable[[str], Dataset], where: str, splits: Splits
) -> Source:
    """Parts of one pool; only the chosen ones are read."""
    chosen, notices = _choose(names, splits, where)
    return Source(notices=notices, **{role: read(part) for role, part in chosen.items()})


def _choose(
    names: Collection[str], splits: Splits, where: str, shown: Collection[str] | None = None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Which part plays which role, and a notice of those that play none.

    ``shown``: of the names, those that an error may tell; None: all.
    """
    shown = names if shown is None else shown
    asked = {role: part_name(name) for role, name in asdict(splits).items() if name}
    chosen = {"train": "train", **asked} if asked else {"train": "train", **_usual(names)}
    for role, name in chosen.items():
        if name not in names:
            raise ValueError(
                f"splits.{role}: there is no {name!r} in {where}; it has: "
                f"{listed(shown)}{did_you_mean(name, shown)}"
            )
    unused = sorted(set(names) - set(chosen.values()))
    text = f"splits: not used of {where}: {listed(unused)}"
    return chosen, (text,) if unused else ()


def _usual(names: Collection[str]) -> dict[str, str]:
    """Roles by usual names; the first that is there."""
    return {
        role: next(name for name in usual if name in names)
        for role, usual in _USUAL.items()
        if set(usual) & set(names)
    }


def _files(folder: Path) -> dict[str, list[Path]]:
    """Data files by part name; several only where they are numbered shards of one part."""
    parts: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name.removesuffix(".gz").endswith(tuple(FORMATS)):
            parts.setdefault(part_name(file.name), []).append(file)
    for name, files in parts.items():
        if len(files) > 1 and not all("-of-" in file.name for file in files):
            raise ValueError(
                f"clients: {listed(file.name for file in files)} in {folder} are all called "
                f"{name!r}; keep one"
            )
    return parts


def _read(files: list[Path], image: str | None) -> Dataset:
    tables = [read_file(file, image) for file in files]
    return tables[0] if len(tables) == 1 else datasets.concatenate_datasets(tables)


def _hub(path: str, name: str | None) -> Mapping[str, Dataset]:
    try:
        parts: Mapping[str, Dataset] = datasets.load_dataset(path, name)
    except Exception as error:  # the hub client raises a dozen kinds, none of them ours
        quotes = isinstance(error, _QUOTING)
        cause = type(error).__name__ if quotes else " ".join(str(error).split())[:300]
        raise ValueError(
            f"clients: {path!r} is no file or folder here, and could not be loaded as a hub "
            f"data set ({cause}). Check clients and name; without a network give a local "
            "file or folder: csv, json, jsonl, parquet or images"
        ) from None
    return parts
