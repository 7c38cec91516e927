"""Safe files: replaced whole, or grown by whole lines; versioned JSON; errors in words.

A file is replaced by a temporary file, fsync and rename; a line is appended with fsync. A run
killed at any moment leaves files that can be read. A line counts once its newline is on disk.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from .durable import Writing, Written, settled, sync_names
from .typed import declared, fits

VERSION = 1
"""The version written into every file; files of a newer one are refused."""

NOTHING: Mapping[str, str] = {}

T = TypeVar("T")


class RecordError(ValueError):
    """A result folder cannot be written or read; the message says what to do."""


class DamagedError(RecordError):
    """A file is not there, or is not what one of us wrote."""


def write_text(path: Path, text: str) -> None:
    """Replace a file whole by ``text`` in UTF-8; errors as ``write_bytes``."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """``writing``, at once; errors are the same."""
    settled(writing(path, data))


def writing(path: Path, data: bytes) -> Writing[None]:
    """Replace a file whole: afterwards it holds all of ``data``, or what it held before.

    Raises:
        RecordError: if the disk is full or the place cannot be written.
    """
    draft = path.with_name(f".{path.name}.tmp")
    with in_words(path):
        try:
            with draft.open("wb", buffering=0) as file:
                write_all(file.fileno(), data)
            yield Written((draft,))
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        yield Written((path.parent,))


def write_apart(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file whole where others may write too; its draft is new, and no link is followed.

    Args:
        path: of the file.
        data: all that it holds.
        replace: whether what is there may be replaced. If not, the draft is linked to its name; a
            file system without links first has the name taken by an empty file.

    Raises:
        RecordError: if something is there, also a link that leads nowhere; if the disk is full, or
            the place cannot be written.
    """
    draft = path.with_name(f".{path.name}.{token_hex(8)}.tmp")
    with in_words(path):
        try:
            with draft.open("xb", buffering=0) as file:
                _write(file.fileno(), data)
            if not replace:
                _take(path, draft)
            os.replace(draft, path)  # of two names of one file, this does nothing
        finally:
            draft.unlink(missing_ok=True)
        sync_names(path.parent)


def write_passing(path: Path, data: Mapping[str, Any]) -> None:
    """``write_json`` of what is true for a moment: whole, and nobody waits for the disk.

    Raises:
        OSError: if it cannot be written.
    """
    draft = path.with_name(f".{path.name}.tmp")
    try:
        draft.write_text(json_text(data), encoding="utf-8")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a file by ``data`` with the version, indented for people.

    Raises:
        RecordError: if it cannot be written; the old file is then intact.
    """
    write_text(path, json_text(data))


def json_text(data: Mapping[str, Any], written: Mapping[str, str] = NOTHING) -> str:
    """What ``write_json`` writes.

    Args:
        data: the fields of an object.
        written: texts of some of their values, by ``value_text`` or ``object_text``.
    """
    fields = {"version": VERSION, **data}
    texts = {n: written[n] if n in written else value_text(v) for n, v in fields.items()}
    return object_text(texts) + "\n"


def value_text(value: Any) -> str:
    """A value as JSON, indented for people, as if it stood by itself."""
    return json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def object_text(fields: Mapping[str, str]) -> str:
    """An object of values that are written already; what they hold is only moved to the right.

    Args:
        fields: name -> the value's text. Its line breaks stand between values, never in a string.
    """
    if not fields:
        return "{}"
    lines = (
        f"  {json.dumps(name, ensure_ascii=False)}: " + text.replace("\n", "\n  ")
        for name, text in fields.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}"


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of ``write_json``.

    Raises:
        DamagedError: if it is missing or damaged.
        RecordError: if it cannot be read, or is of a newer version.
    """
    if not path.exists():
        raise DamagedError(f"{path}: is missing")
    with in_words(path):
        return _parse(path.read_text(encoding="utf-8", errors="replace"), str(path))


def append_line(path: Path, data: Mapping[str, Any]) -> None:
    """Add one line of JSON and wait until it is on disk; a torn last line is cut off first.

    Raises:
        RecordError: if it cannot be written; the lines before it are intact.
    """
    append_bytes(path, json_line(data))


def append_bytes(path: Path, lines: bytes) -> None:
    """``appending``, at once; errors are the same."""
    settled(appending(path, lines))


def appending(path: Path, lines: bytes) -> Writing[None]:
    """Add whole lines; a torn last line is cut off first.

    Raises:
        RecordError: if they cannot be written; the lines before them are intact.
    """
    with in_words(path):
        with path.open("ab", buffering=0) as file:
            end = _end_of_lines(path)
            os.truncate(path, end)
            try:
                write_all(file.fileno(), lines)
            except OSError:
                _cut(path, end)
                raise
        try:
            yield Written((path,))
        except OSError:
            _cut(path, end)
            raise


def read_lines(path: Path, newest: int = VERSION) -> list[dict[str, Any]]:
    """The lines of a ``.jsonl`` file; a torn last line is dropped, an absent file has none.

    Args:
        path: of the file.
        newest: version that the reader knows; lines of a newer one are refused.

    Raises:
        DamagedError: if a whole line is damaged.
        RecordError: if it cannot be read, or is of a newer version.
    """
    if not path.exists():
        return []
    with in_words(path):
        whole = whole_lines(path.read_bytes()).decode(errors="replace")
    lines = whole.split("\n")[:-1]
    return [_parse(line, f"{path}, line {i}", newest) for i, line in enumerate(lines, start=1)]


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replace a ``.jsonl`` file whole.

    Raises:
        RecordError: if it cannot be written; the old file is then intact.
    """
    write_bytes(path, b"".join(map(json_line, lines)))


def json_line(data: Mapping[str, Any]) -> bytes:
    """One line of a ``.jsonl`` file, its newline included."""
    content = finite({"version": VERSION, **data})
    return (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse_line(line: bytes, where: str, newest: int = VERSION) -> dict[str, Any]:
    """The inverse of ``json_line``.

    Args:
        line: with its newline or without.
        where: file and line, for the message.
        newest: version that the reader knows.

    Raises:
        RecordError: if it is damaged or of a newer version.
    """
    return _parse(line.decode(errors="replace"), where, newest)


def whole_lines(data: bytes) -> bytes:
    """The lines in ``data``, without a torn last one: its newline was not on the disk yet."""
    return data[: data.rfind(b"\n") + 1]


def complete_last_line(path: Path) -> None:
    """Give a torn last line of JSON that can be read, and so was written whole, its newline.

    Raises:
        OSError: if the file is not there, or cannot be read or written.
    """
    if not _is_torn(path):
        return
    data = path.read_bytes()
    with suppress(ValueError):
        json.loads(data[len(whole_lines(data)) :])
        with path.open("ab", buffering=0) as file:
            _write(file.fileno(), b"\n")


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Turn the errors of the operating system into a sentence that names ``path``.

    Raises:
        RecordError: in place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "; free some space" if full else ""
        reason = error.strerror or type(error).__name__
        raise RecordError(f"{path}: {reason}{advice}") from error


def build(cls: type[T], data: Mapping[str, Any], where: str, *, typed: bool = True) -> T:
    """Make a dataclass from JSON; fields that it does not know are ignored.

    Args:
        cls: of plain values, and mappings and sequences of such.
        data: of a JSON object.
        where: file and line, for the message.
        typed: whether values must be of the types that the class declares.

    Raises:
        DamagedError: naming fields without a default that are missing, or that have another type.
    """
    known = fields(cls)  # type: ignore[arg-type]
    needed = [f.name for f in known if f.default is MISSING and f.default_factory is MISSING]
    if absent := [name for name in needed if name not in data]:
        raise DamagedError(f"{where}: damaged, {', '.join(absent)} is missing")
    found = {f.name: data[f.name] for f in known if f.name in data}
    kinds = declared(cls)  # type: ignore[arg-type]  # a class can be hashed
    wrong = [name for name, value in found.items() if not fits(value, kinds[name])]
    if typed and wrong:
        raise DamagedError(f"{where}: damaged, {', '.join(wrong)} is of another type")
    return cls(**found)


def _parse(text: str, where: str, newest: int = VERSION) -> dict[str, Any]:
    try:
        data = json.loads(text)
        newer = data["version"] > newest
        values = dict(data)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{where}: damaged, this is not a record of silotune") from error
    if newer:
        raise RecordError(
            f"{where}: written by a newer silotune (version {data['version']}, this one reads "
            f"{newest}); upgrade silotune to read it"
        )
    return values


def _take(path: Path, draft: Path) -> None:
    try:
        try:
            os.link(draft, path)
        except FileExistsError:
            raise
        except OSError:  # no links there
            path.open("xb").close()
    except FileExistsError:
        raise RecordError(f"{path}: exists already, and was not replaced") from None


def _write(descriptor: int, data: bytes) -> None:
    """All of it, on the disk."""
    write_all(descriptor, data)
    os.fsync(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it; it need not be on the disk then.

    Raises:
        OSError: if it cannot be written.
    """
    left = memoryview(data)
    while left:  # one call takes 2 GB at most
        written = os.write(descriptor, left)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left = left[written:]


def _cut(path: Path, end: int) -> None:
    with suppress(OSError):
        os.truncate(path, end)


def _end_of_lines(path: Path) -> int:
    return len(whole_lines(path.read_bytes())) if _is_torn(path) else path.stat().st_size


def _is_torn(path: Path) -> bool:
    """Whether something stands behind the last newline; only that byte is read."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        return file.read(1) not in (b"\n", b"")


def finite(value: Any) -> Any:
    """The same as JSON can hold it: numbers that are not finite are null."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value
