"""Data summary: how the records divide over the silos, before or without any training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from silotune.data.summary import SiloSummary
from silotune.terms.build import read_model

from .description import Description
from .inputs import read_examples, read_tables


@dataclass(frozen=True, kw_only=True)
class Division:
    """The records of a run. Only for eyes that may see all of them; epsilon does not cover it.

    Attributes:
        silos: numbers about each silo's training records.
        held_out: silo -> records that it is scored on, if any.
        own_test: silo -> records of its own for the final figure, if any.
        valid: records beside the silos, to watch training by.
        test: the same, for the final figure.
        notices: what the user should know.
    """

    silos: Mapping[str, SiloSummary]
    held_out: Mapping[str, int]
    own_test: Mapping[str, int]
    valid: int
    test: int
    notices: tuple[str, ...]


def divide(federation: Description) -> Division:
    """Read and tokenise all records, and count.

    Raises:
        ValueError: in words, naming the key of the configuration.
    """
    terms = federation.terms
    prepared = read_tables(terms, federation.records)
    loaded = read_model(terms, prepared.labels, federation.given)
    data = read_examples(terms, prepared, loaded)
    kept = {name: silo.held_out for name, silo in data.silos.items()}
    tests = {name: silo.test for name, silo in data.silos.items()}
    return Division(
        silos={name: silo.summary for name, silo in data.silos.items()},
        held_out={name: len(held.lengths) for name, held in kept.items() if held is not None},
        own_test={name: len(own.lengths) for name, own in tests.items() if own is not None},
        valid=0 if data.valid is None else len(data.valid.lengths),
        test=0 if data.test is None else len(data.test.lengths),
        notices=(*prepared.notices, *data.notices),
    )
