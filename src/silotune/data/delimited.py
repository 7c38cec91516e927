"""Delimited: csv and tsv files. What separates their columns is asked, never guessed."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from io import StringIO
from itertools import islice

import pyarrow as pa
import pyarrow.csv as pa_csv

from .encodings import decoded
from .messages import UnreadableError

_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
"""What usually separates columns."""

_LOOKED_AT = 20
"""Records in which a separator must make as many columns as in the first row."""


def read_delimited(
    content: bytes,
    usual: str,
    delimiter: str | None,
    encoding: str | None,
    as_text: Sequence[str] = (),
) -> pa.Table:
    """A file as a table; types come from all of it.

    Args:
        content: of the whole file.
        usual: what separates its columns, by its suffix.
        delimiter: the same, if it was said.
        encoding: if it was said.
        as_text: columns that are texts, whatever they look like.

    Raises:
        UnreadableError: with the separator and the encoding that it looks like.
    """
    mark = delimiter or usual
    unread = None
    try:
        text = decoded(content, encoding)
    except UnreadableError as error:
        if not error.answers:
            raise
        unread, text = error, content.decode(error.answers["encoding"], errors="replace")
    if mark not in _first_row(text):
        _ask(text, mark, unread)
    if unread is not None:
        raise unread
    if not text.strip():
        return pa.table({})
    options = pa_csv.ParseOptions(delimiter=mark, newlines_in_values=True)
    kinds = pa_csv.ConvertOptions(column_types=dict.fromkeys(as_text, pa.string()))
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(text.encode()), parse_options=options, convert_options=kinds
        )
    except pa.ArrowException:
        _ask(text, mark)
        raise UnreadableError(_ragged(text, mark) or "it is no sound csv file") from None
    if twice := [name for name, n in Counter(table.column_names).items() if n > 1]:
        raise UnreadableError(f"it has two columns {twice[0]!r}; rename one, or take it out")
    return table


def _ask(text: str, mark: str, unread: UnreadableError | None = None) -> None:
    """Ask where a file looks as if something else than ``mark`` separated its columns.

    Args:
        text: of the file.
        mark: which does not separate its columns.
        unread: what has to be answered beside, if its encoding has.

    Raises:
        UnreadableError: with the answers.
    """
    other = guessed_delimiter(text, mark)
    if other is None:
        return
    answers = dict(unread.answers) if unread else {}
    of = "".join(f" {encoding}" for encoding in answers.values())
    also = "".join(f" and {field} to {answer!r}" for field, answer in answers.items())
    raise UnreadableError(
        f"it looks like {_NAMES[other]} separated{of} columns: set delimiter to {other!r}{also}",
        field="delimiter",
        answers={"delimiter": other, **answers},
    )


def guessed_delimiter(text: str, mark: str) -> str | None:
    """A usual separator, and another one, that the first row has and those below agree with.

    Args:
        text: of the file.
        mark: which does not separate its columns.
    """
    first = _first_row(text)
    found = [other for other in _NAMES if other != mark and other in first]
    return next((other for other in found if _makes_columns(text, other)), None)


def _first_row(text: str) -> str:
    return text.lstrip().partition("\n")[0]


def _makes_columns(text: str, mark: str) -> bool:
    try:
        widths = {width for _, width in islice(_widths(text, mark), _LOOKED_AT)}
    except csv.Error:
        return False
    return len(widths) == 1


def _ragged(text: str, mark: str) -> str | None:
    """Which line has another number of cells than the first; no cell is told."""
    widths = _widths(text, mark)
    try:
        _, columns = next(widths)
        line, width = next((line, width) for line, width in widths if width != columns)
    except (csv.Error, StopIteration):
        return None
    return (
        f"line {line} has {width} cells, and the first row {columns}; put quotes around cells that "
        f"hold a {_NAMES.get(mark, repr(mark))}, or set delimiter"
    )


def _widths(text: str, mark: str) -> Iterator[tuple[int, int]]:
    """The line on which each row begins, and how many cells it has; blank lines are none."""
    rows = csv.reader(StringIO(text, newline=""), delimiter=mark)
    first = 1
    for row in rows:
        if row:
            yield first, len(row)
        first = rows.line_num + 1


def check_delimiter(delimiter: str | None) -> None:
    """See that it is one character that may stand between columns.

    Raises:
        ValueError: if it is not.
    """
    if delimiter is not None and (
        not isinstance(delimiter, str)
        or len(delimiter) != 1
        or not delimiter.isascii()
        or delimiter in '"\r\n'
    ):
        raise ValueError(f"delimiter: {delimiter!r} is not one character, such as ; or a tab")
