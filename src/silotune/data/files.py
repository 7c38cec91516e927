"""Files: one data file, on a disk or at a URL, as a table in memory. Nothing is cached."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath

import pyarrow as pa
from datasets import Dataset

from .formats import FORMATS, FileOptions
from .messages import UnreadableError

_PACKED: Mapping[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}

_ZIP = ".zip"

KINDS = "csv, tsv, json, jsonl, parquet, feather, arrow and xlsx"
"""For people: all that can be read, by its suffix, also packed."""

_BROKEN = (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)

_SHARD = re.compile(r"-\d+-of-\d+$")


def part_name(file_name: str) -> str:
    """What a file is called as a part: ``train`` for train.csv.gz and train-0-of-2.parquet."""
    name = file_name
    for suffixes in (_PACKED, (_ZIP,), FORMATS):
        suffix = PurePosixPath(name).suffix
        name = name.removesuffix(suffix) if suffix.lower() in suffixes else name
    return _SHARD.sub("", name)


def is_file_name(name: str) -> bool:
    """Whether a file of this name, or a URL that ends so, would be one of data."""
    last = _url_name(name) if is_url(name) else PurePosixPath(name).name
    return part_name(last) != _SHARD.sub("", last)


def is_url(path: str) -> bool:
    """Whether it says by which protocol a file is fetched."""
    return re.match(r"[a-z][a-z0-9+.-]+(://|::)", path) is not None


def read_file(path: Path, options: FileOptions | None = None) -> Dataset:
    """Read one file of a disk.

    Args:
        path: the file, told by its suffix.
        options: how.

    Raises:
        ValueError: if the file is of another kind or broken.
    """
    options = options or FileOptions()

    def table() -> pa.Table:
        return _anchored(_read(path.name, path.read_bytes(), options), options.image, path.parent)

    return _in_words(str(path), table)


def read_bytes(name: str, content: bytes, options: FileOptions | None = None) -> Dataset:
    """Read what a file would hold.

    Args:
        name: of the file, whose suffix tells of which kind it is.
        content: of it.
        options: how.

    Raises:
        ValueError: if it is of another kind or broken.
    """
    return _in_words(name, lambda: _read(name, content, options or FileOptions()))


def read_url(url: str, options: FileOptions | None = None) -> Dataset:
    """Read one file that fsspec fetches: https, s3, hf and others.

    Args:
        url: whose path ends like the name of a file.
        options: how.

    Raises:
        ValueError: if it cannot be fetched, or is of another kind or broken.
    """

    def table() -> pa.Table:
        return _read(_url_name(url), _fetched(url), options or FileOptions())

    return _in_words(url, table)


def _url_name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def _fetched(url: str) -> bytes:
    import fsspec

    try:
        with fsspec.open(url, "rb") as file:
            content: bytes = file.read()
    except Exception as error:  # every protocol raises kinds of its own; no record is read yet
        cause = " ".join(str(error).split())[:200]
        raise UnreadableError(
            f"it cannot be fetched ({type(error).__name__}: {cause}); without a network give a "
            "local file or folder"
        ) from None
    return content


def _in_words(where: str, read: Callable[[], pa.Table]) -> Dataset:
    try:
        return Dataset(_plain(read()))
    except UnreadableError as error:
        words = f"{error.field}: cannot read {where}: {error}"
        raise UnreadableError(words, error.field, error.answers) from None
    except _BROKEN as error:  # whose own words may quote cells
        cause = error.strerror if isinstance(error, OSError) else None
        raise ValueError(
            f"clients: cannot read {where}: {cause or 'it is no sound file of its kind'}"
        ) from None


def _read(name: str, content: bytes, options: FileOptions) -> pa.Table:
    """Unpack as the suffixes say, and read."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _PACKED:
        return _read(name[: -len(suffix)], _PACKED[suffix](content), options)
    if suffix == _ZIP:
        return _read(*_only_file(content), options)
    if suffix not in FORMATS:
        raise UnreadableError(f"it is none of {KINDS} (each by its suffix)")
    return FORMATS[suffix](content, options)


def _only_file(content: bytes) -> tuple[str, bytes]:
    """Name and content of the only data file in a zip archive."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            names = [n for n in archive.namelist() if is_file_name(n) and not is_hidden(n)]
            if len(names) != 1:
                raise UnreadableError(f"it holds {len(names)} data files; a zip file holds one")
            return names[0], archive.read(names[0])
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError):  # the last two: a password
        raise UnreadableError("it is no sound zip file, or needs a password") from None


def is_hidden(name: str) -> bool:
    """Whether nobody put it there for its content: what macOS, editors and notebooks add."""
    return any(part.startswith((".", "__")) for part in PurePosixPath(name).parts)


def _plain(table: pa.Table) -> pa.Table:
    """Dictionary-encoded columns (pandas' categories) as their values."""
    types = [f.type.value_type if pa.types.is_dictionary(f.type) else f.type for f in table.schema]
    fields = [f.with_type(t) for f, t in zip(table.schema, types, strict=True)]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def _anchored(table: pa.Table, image: str | None, folder: Path) -> pa.Table:
    """Image paths made absolute; bytes stay as they are."""
    place = table.schema.get_field_index(image) if image else -1
    kind = table.schema.field(place).type if place >= 0 else pa.null()
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return table
    paths = [name and str((folder / name).resolve()) for name in table[image].to_pylist()]
    return table.set_column(place, image, pa.array(paths, kind))
