"""What an adapter's folder says of its model, so that it can be loaded by itself.

``silotune.json`` holds the public terms, the label set and the digest of the base weights. PEFT
does not look at it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from silotune.core.files import DamagedError, read_json, write_json
from silotune.terms import BuiltModel, Terms
from silotune.terms.start import MADE as FILE

from .identity import NoIdentityError, decoded, encoded


@dataclass(frozen=True, kw_only=True)
class Made:
    """How an adapter was made.

    Attributes:
        terms: public; no path to a record is in them.
        labels: in the order of ids.
        digest: SHA-256 of all that is frozen.
        began: when its run did, in ISO 8601.
    """

    terms: Terms
    labels: tuple[str, ...]
    digest: str
    began: str


def write_made(
    place: Path, terms: Terms, labels: tuple[str, ...], model: BuiltModel, began: str
) -> None:
    """Write it, unless an object of the terms is no frozen dataclass, which no file can hold."""
    with contextlib.suppress(NoIdentityError):
        told = {"terms": encoded(terms, "terms"), "labels": list(labels)}
        write_json(place / FILE, {**told, "model_digest": model.digest, "began": began})


def read_made(place: Path) -> Made:
    """Read it.

    Raises:
        DamagedError: if it is not there, or damaged.
        ValueError: if it names a class that nobody imported.
    """
    file = place / FILE
    if not file.is_file():
        raise DamagedError(
            f"{place}: there is no {FILE}, which says how the model was made. An adapter of PEFT's "
            "own is loaded by PEFT; a run with objects that are no frozen dataclasses is used "
            "where it was made (run.merged_model, run.evaluate)"
        )
    match read_json(file):
        case {
            "terms": dict(terms),
            "labels": list(labels),
            "model_digest": str(model),
            "began": str(began),
        }:
            made = decoded(terms, str(file))
            if isinstance(made, Terms) and all(isinstance(label, str) for label in labels):
                return Made(terms=made, labels=tuple(labels), digest=model, began=began)
    raise DamagedError(f"{file}: damaged, this does not say how the model was made")
