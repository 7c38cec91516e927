"""Plain: text from outside as a terminal may show it, in one line and of a length that is read."""

from __future__ import annotations

import unicodedata

MOST = 200
"""Characters."""

_STACKED = ("Mn", "Me")
"""Marks that are drawn over what stands before them, in whatever number."""


def plain(text: str, most: int = MOST) -> str:
    """Without anything that moves a cursor, turns the direction of writing, hides or overlays.

    A character that is not to be seen is shown as ``?``, so that nothing disappears.

    Args:
        text: of somebody whom nobody trusts.
        most: characters that are kept.
    """
    kept = unicodedata.normalize("NFC", text[:most])
    shown = "".join(c if c.isprintable() and not _stacks(c) else "?" for c in kept)
    more = len(text) - most
    return f"{shown}... ({more:,} more characters)" if more > 0 else shown


def _stacks(character: str) -> bool:
    return unicodedata.category(character) in _STACKED
