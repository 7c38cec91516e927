"""Delimited: csv and tsv files. What separates their columns is asked, never guessed."""

from __future__ import annotations

import csv
import re
from io import StringIO

import pyarrow as pa
import pyarrow.csv as pa_csv

from .encodings import decoded, guessed_encoding
from .messages import UnreadableError

_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
"""What usually separates columns."""

_OTHER_COLUMNS = re.compile(r"(Row #\d+: )?Expected \d+ columns, got \d+")
"""What may be told of Arrow's words: numbers."""

_LOOKED_AT = 20
"""Records in which a separator must make as many columns as in the first row."""


def read_delimited(
    content: bytes, usual: str, delimiter: str | None, encoding: str | None
) -> pa.Table:
    """A file as a table; types come from all of it.

    Args:
        content: of the whole file.
        usual: what separates its columns, by its suffix.
        delimiter: the same, if it was said.
        encoding: if it was said.

    Raises:
        UnreadableError: with the separator and the encoding that it looks like.
    """
    if delimiter is None:
        _ask(content, usual, encoding)
    text = decoded(content, encoding)
    if not text.strip():
        return pa.table({})
    options = pa_csv.ParseOptions(delimiter=delimiter or usual, newlines_in_values=True)
    try:
        return pa_csv.read_csv(pa.BufferReader(text.encode()), parse_options=options)
    except pa.ArrowException as error:
        counted = _OTHER_COLUMNS.search(str(error))
        raise UnreadableError(counted[0] if counted else "it is no sound csv file") from None


def _ask(content: bytes, usual: str, encoding: str | None) -> None:
    """Ask where the file looks as if something else separated its columns.

    Raises:
        UnreadableError: with the answers.
    """
    guess = None
    try:
        text = decoded(content, encoding)
    except UnreadableError:
        if encoding is not None:
            raise
        guess = guessed_encoding(content)
        text = content.decode(guess, errors="replace")
    other = guessed_delimiter(text, usual)
    if other is None:
        return
    also, of = (f" and encoding to {guess!r}", f" {guess}") if guess else ("", "")
    raise UnreadableError(
        f"it looks like {_NAMES[other]} separated{of} columns: set delimiter to {other!r}{also}",
        field="delimiter",
        answers={"delimiter": other, **({"encoding": guess} if guess else {})},
    )


def guessed_delimiter(text: str, usual: str) -> str | None:
    """Another separator than the usual one that the first row has and those below agree with.

    Args:
        text: of the file.
        usual: separator, which then is not in the first row.
    """
    first = text.lstrip().partition("\n")[0]
    if usual in first:
        return None
    found = [mark for mark in _NAMES if mark != usual and mark in first]
    return next((mark for mark in found if _makes_columns(text, mark)), None)


def _makes_columns(text: str, delimiter: str) -> bool:
    rows = csv.reader(StringIO(text.lstrip(), newline=""), delimiter=delimiter)
    try:
        widths = [len(row) for row, _ in zip(rows, range(_LOOKED_AT), strict=False) if row]
    except csv.Error:
        return False
    return len(set(widths)) == 1


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
