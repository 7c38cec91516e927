"""Encodings: bytes as text; where they are no UTF-8, what they look like instead."""

from __future__ import annotations

import codecs

from .messages import UnreadableError

_MARKED = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def decoded(content: bytes, encoding: str | None) -> str:
    """The text.

    Args:
        content: of a whole file.
        encoding: as Python calls it; None: UTF-8, with or without a mark of the byte order.

    Raises:
        UnreadableError: with the encoding that it looks like, if none was given.
    """
    try:
        text = content.decode(encoding or "utf-8-sig")
    except UnicodeError:
        text = None
    if text is not None and (encoding or "\x00" not in text):
        return text
    if encoding is not None:
        raise UnreadableError(f"it is not {encoding}", field="encoding")
    guess = guessed_encoding(content)
    raise UnreadableError(
        f"it is not UTF-8 and looks like {guess}: set encoding to {guess!r}",
        field="encoding",
        answers={"encoding": guess},
    )


def guessed_encoding(content: bytes) -> str:
    """What western programs write that is not UTF-8: UTF-16, Windows' code page, or latin-1."""
    for mark, name in _MARKED.items():
        if content.startswith(mark):
            return name
    if b"\x00" in content:
        return "utf-16-le" if content[1:2] == b"\x00" else "utf-16-be"
    if any(0x80 <= byte < 0xA0 for byte in content):  # latin-1 has no letters there
        return "cp1252"
    return "latin-1"


def check_encoding(encoding: str | None) -> None:
    """See that Python knows an encoding of text.

    Raises:
        ValueError: if it does not.
    """
    try:
        known = encoding is None or codecs.lookup(encoding)._is_text_encoding
    except LookupError:
        known = False
    if not known:
        raise ValueError(
            f"encoding: {encoding!r} is none that Python knows; such as utf-8, latin-1 or cp1252"
        )
