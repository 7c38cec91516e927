"""Words of an error message: what there is, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

_MOST = 12


class UnreadableError(ValueError):
    """Why a file or a cell cannot be read, in words of our own: no record is in them.

    Attributes:
        field: what the words are about: where the file is, or how it is read.
        answers: fields by which it can be read, as far as it looks.
    """

    def __init__(
        self, text: str, field: str = "clients", answers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.field = field
        self.answers = answers or {}


def listed(names: Iterable[object]) -> str:
    """Names with commas between them; a long list is cut and says so."""
    words = [str(name) for name in names]
    more = f" and {len(words) - _MOST} more" if len(words) > _MOST else ""
    return (", ".join(words[:_MOST]) + more) or "nothing"


def did_you_mean(name: object, names: Iterable[object]) -> str:
    """A question about the closest name, or nothing when none is close."""
    close = difflib.get_close_matches(str(name), [str(n) for n in names], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
