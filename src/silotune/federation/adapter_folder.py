"""What an adapter's folder says of its model, so that it can be loaded by itself.

``silotune.json`` holds the public terms, the label set and the digest of the base weights. PEFT
does not look at it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from silotune.core.files import read_json, write_json
from silotune.terms import BuiltModel, Terms

from .identity import NoIdentityError, decoded, encoded

FILE = "silotune.json"


@dataclass(frozen=True, kw_only=True)
class Made:
    """How an adapter was made.

    Attributes:
        terms: public; no path to a record is in them.
        labels: in the order of ids.
        digest: SHA-256 of all that is frozen.
    """

    terms: Terms
    labels: tuple[str, ...]
    digest: str


def write_made(place: Path, terms: Terms, labels: tuple[str, ...], model: BuiltModel) -> None:
    """Write it, unless an object of the terms is no frozen dataclass, which no file can hold."""
    with contextlib.suppress(NoIdentityError):
        told = {"terms": encoded(terms, "terms"), "labels": list(labels)}
        write_json(place / FILE, {**told, "model_digest": model.digest})


def read_made(place: Path) -> Made:
    """Read it.

    Raises:
        ValueError: in words, if it is not there, damaged, or names a class that nobody imported.
    """
    file = place / FILE
    if not file.is_file():
        raise ValueError(
            f"{place}: there is no {FILE}, which says how the model was made. An adapter of PEFT's "
            "own is loaded by PEFT; a run with objects that are no frozen dataclasses is used "
            "where it was made (run.merged_model, run.evaluate)"
        )
    found = read_json(file)
    try:
        return Made(
            terms=decoded(found["terms"], str(file)),
            labels=tuple(found["labels"]),
            digest=found["model_digest"],
        )
    except KeyError as error:
        raise ValueError(f"{file}: damaged, it lacks {error}") from error
