"""Loading: from what ``clients`` names to tables.

Local files are read straight into memory, without a cache and without the network. Whatever the
source, its parts have names (file stems, hub splits, or the values of a column ``split`` in a
single table), and ``splits`` says which of them are train, valid and test.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import datasets
import pyarrow as pa
from datasets import Dataset

from .demo import letters, triage
from .files import KINDS, is_file_name, is_hidden, is_url, part_name, read_file, read_url
from .formats import FileOptions
from .messages import did_you_mean, listed
from .saved import Parts, is_saved, saved_parts

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

    Neither where the silos' records are elsewhere.

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

    @property
    def is_beside(self) -> bool:
        """Whether there are records for everybody at most."""
        return self.train is None and not self.silos


def load(
    path: str,
    name: str | None = None,
    splits: Splits | None = None,
    files: FileOptions | None = None,
) -> Source:
    """Read a demo, a file, a folder, a URL or a hub data set.

    Folders are: files named by part (``train.parquet``; ``train-00000-of-00002.parquet`` and its
    like are joined), what ``save_to_disk`` of ``datasets`` wrote, images (``<class>/*.png`` or
    ``train/<class>/*.png``, giving columns ``image`` and ``label``), or one folder of these or one
    file a silo (``<site>/train.jsonl``, ``<site>/<class>/*.png``, ``<site>.csv``, with tables for
    everybody beside them).

    Args:
        path: ``clients``.
        name: ``name``, the configuration of a hub data set; local data has none.
        splits: ``splits``.
        files: how single files are read.

    Raises:
        ValueError: if there is nothing there that can be read, in words.
    """
    splits, files = splits or Splits(), files or FileOptions()
    if path.startswith("demo:"):
        return _single(_demo(path), path, splits)
    if is_url(path):
        return _elsewhere(path, name, splits, files)
    place = Path(path).expanduser()
    if place.is_file():
        return _single(read_file(place, files), place.name, splits)
    if place.is_dir():
        return _folder(place, splits, files)
    if is_file_name(place.name) or path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ValueError(f"clients: there is no file or folder {path}")
    return _hub(path, name, splits)


def _demo(path: str) -> Dataset:
    made = {"demo:triage": triage, "demo:letters": letters}
    if path not in made:
        raise ValueError(f"clients: there is no {path}; the bundled data are {' and '.join(made)}")
    return made[path]()


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


def _folder(place: Path, splits: Splits, files: FileOptions) -> Source:
    if is_saved(place):
        return _saved(place, splits)
    train = part_name(splits.train or "train")
    parts = _COMMON | {part_name(name) for name in asdict(splits).values() if name}
    top = _parts(place, files) or _pictures(place, "train")
    inner = {folder.name: _inside(folder, parts, files) for folder in _folders(place)}
    for name in sorted(parts & inner.keys() - top.keys()):
        if set(inner[name]) == {name}:  # for everybody, in a folder of its own
            top = {**top, **inner.pop(name)}
    sites = {site: own for site, own in inner.items() if own}
    if not sites and not top:
        raise ValueError(
            f"clients: {place} has neither data files ({KINDS}), nor folders with train files, one "
            "a silo, nor folders with images, one a class, or one a silo with such folders inside"
        )
    if train in top:
        source = _of_parts(top, str(place), splits)
        unused = f"clients: not used of {place}: the folders {listed(sites)}"
        return _with_notice(source, unused) if sites else source
    if train in sites and set(sites) <= parts:
        return _of_parts({**top, **_from_folders(sites)}, str(place), splits)
    return _sites(sites, top, str(place), splits) if sites else _files(top, place, splits)


def _inside(folder: Path, parts: Collection[str], files: FileOptions) -> Parts:
    """What a folder inside holds: what ``save_to_disk`` wrote, data files, or else images.

    Args:
        folder: of a silo, or of a part.
        parts: what parts are called; what has no name itself, in a folder that is called so, is
            that part.
        files: how single files are read.
    """
    own = folder.name if folder.name in parts else "train"
    if is_saved(folder):
        return saved_parts(folder, own)
    return _parts(folder, files) or _images(folder, own, parts)


def _files(top: Parts, place: Path, splits: Splits) -> Source:
    """Files of which none is called train: one alone, or one a silo."""
    if len(top) == 1:
        ((only, read),) = top.items()
        return _single(read(), only, splits)
    silos = _file_silos(top) if splits == Splits() else []
    if not silos:
        return _of_parts(top, str(place), splits)
    source = _sites({s: {"train": top[s]} for s in silos}, top, str(place), splits)
    return _with_notice(
        source, f"clients: each file of {place} is taken for a silo: {listed(silos)}"
    )


def _with_notice(source: Source, text: str) -> Source:
    return replace(source, notices=(*source.notices, text))


def _saved(place: Path, splits: Splits) -> Source:
    parts = saved_parts(place)
    if set(parts) == {"train"}:
        return _single(parts["train"](), str(place), splits)
    return _of_parts(parts, str(place), splits)


def _file_silos(top: Collection[str]) -> list[str]:
    """Files that are a silo each; none where one of them may be meant as a part.

    ``training`` beside ``testing`` is no silo, but a part by another name, which ``splits`` says.
    """
    silos = [name for name in top if name not in _COMMON]
    words = [word for name in silos for word in re.split(r"[\W\d_]+", name.lower())]
    is_part = any(
        word == usual or (len(usual) > len("dev") and word.startswith(usual))
        for word in words
        for usual in _COMMON
    )
    return [] if is_part or len(silos) < 2 else silos


def _from_folders(folders: Mapping[str, Parts]) -> Parts:
    """Parts that are a folder each, with one table."""
    return {name: next(iter(parts.values())) for name, parts in folders.items() if len(parts) == 1}


def _sites(sites: Mapping[str, Parts], top: Parts, where: str, splits: Splits) -> Source:
    """Parts by silo; tables beside them are for everybody."""
    silos: dict[str, Tables] = {}
    notices: list[str] = []
    for site, parts in sites.items():
        chosen, unused = _choose(parts, splits, f"{where}/{site}")
        silos[site] = Tables(**{role: parts[part]() for role, part in chosen.items()})
        notices += unused
    shared = {role: part for role, part in _usual(top).items() if role != "train"}
    if spare := sorted(top.keys() - sites.keys() - set(shared.values())):
        notices.append(f"clients: not used of {where}, beside the silos: {listed(spare)}")
    tables = {role: top[part]() for role, part in shared.items()}
    return Source(silos=silos, notices=tuple(notices), **tables)


def _images(folder: Path, alone: str, parts: Collection[str]) -> Parts:
    """``<class>/*.png``, and the same inside of ``train`` and other parts."""
    own = _pictures(folder, alone)
    inner: dict[str, Callable[[], Dataset]] = {}
    for inside in _folders(folder):
        inner |= _pictures(inside, inside.name)
    if both := own.keys() & inner.keys():
        raise ValueError(
            f"clients: {folder} has images by class itself, and in {listed(both)} inside; keep one"
        )
    empty = {f.name: partial(_labelled_images, f) for f in _folders(folder) if f.name in parts}
    return {**empty, **inner, **own} if inner or own else {}


def _pictures(folder: Path, part: str) -> dict[str, Callable[[], Dataset]]:
    """A part whose classes are folders of images; nothing if these are not there."""
    return {part: partial(_labelled_images, folder)} if any(_image_files(folder)) else {}


def _image_files(folder: Path) -> Iterator[Path]:
    """Images by class."""
    for inside in _folders(folder):
        files = (f for f in sorted(inside.iterdir()) if f.suffix.lower() in IMAGES)
        yield from (file for file in files if not is_hidden(file.name))


def _labelled_images(folder: Path) -> Dataset:
    files = list(_image_files(folder))
    labels = [file.parent.name for file in files]
    return Dataset.from_dict({"image": [str(f.resolve()) for f in files], "label": labels})


def _folders(place: Path) -> list[Path]:
    return [f for f in sorted(place.iterdir()) if f.is_dir() and not is_hidden(f.name)]


def _of_parts(parts: Parts, where: str, splits: Splits) -> Source:
    """Parts of one pool; only the chosen ones are read."""
    chosen, notices = _choose(parts, splits, where)
    return Source(notices=notices, **{role: parts[part]() for role, part in chosen.items()})


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


def _parts(folder: Path, options: FileOptions) -> Parts:
    """Data files by part name; several only where they are numbered shards of one part."""
    parts: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and is_file_name(file.name) and not is_hidden(file.name):
            parts.setdefault(part_name(file.name), []).append(file)
    for name, files in parts.items():
        if len(files) > 1 and not all("-of-" in file.name for file in files):
            raise ValueError(
                f"clients: {listed(file.name for file in files)} in {folder} are all called "
                f"{name!r}; keep one"
            )
    return {name: partial(_read, files, options) for name, files in parts.items()}


def _read(files: list[Path], options: FileOptions) -> Dataset:
    tables = [read_file(file, options) for file in files]
    if len(tables) == 1:
        return tables[0]
    try:
        return datasets.concatenate_datasets(tables)
    except Exception:  # datasets and Arrow have kinds of their own
        raise ValueError(
            f"clients: {listed(file.name for file in files)} in {files[0].parent} have other "
            "columns, or columns of other kinds; make them alike"
        ) from None


def _elsewhere(url: str, name: str | None, splits: Splits, files: FileOptions) -> Source:
    """A file that is fetched; or of ``hf://datasets/owner/name``, the hub's data set."""
    if is_file_name(url):
        return _single(read_url(url, files), url, splits)
    on_hub = re.fullmatch(r"hf://datasets/([^/@]+/[^/@]+)/?", url)
    if on_hub:
        return _hub(on_hub[1], name, splits)
    raise ValueError(f"clients: {url} does not end like a data file: {KINDS}")


def _hub(path: str, name: str | None, splits: Splits) -> Source:
    try:
        loaded: Mapping[str, Dataset] = datasets.load_dataset(path, name)
    except Exception as error:  # the hub client raises a dozen kinds, none of them ours
        quotes = isinstance(error, _QUOTING)
        cause = type(error).__name__ if quotes else " ".join(str(error).split())[:300]
        raise ValueError(
            f"clients: {path!r} is no file or folder here, and could not be loaded as a hub "
            f"data set ({cause}). Check clients and name; without a network give a local "
            f"file or folder: {KINDS}, or images"
        ) from None
    chosen, notices = _choose(loaded, splits, path)
    return Source(notices=notices, **{role: loaded[part] for role, part in chosen.items()})
