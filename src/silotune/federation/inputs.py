"""Inputs: what a federation names, opened: tables, and examples as the model reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from datasets import Dataset

from silotune.core import ClientDataset
from silotune.data.columns import Columns, check_columns
from silotune.data.federated_dataset import Prepared, prepare_silos
from silotune.data.images import image_examples
from silotune.data.record_digests import tables_digest
from silotune.data.summary import SiloSummary, summarize
from silotune.data.tokenization import text_examples
from silotune.models.load import Loaded
from silotune.terms import Terms

from .records import Records


@dataclass(frozen=True, kw_only=True)
class SiloExamples:
    """One silo's records as the model reads them.

    Attributes:
        train: what it trains on.
        held_out: what rounds are scored on; None if nothing is.
        test: its own, for the final figure; None if it has none.
        summary: of what it trains on.
    """

    train: ClientDataset
    held_out: ClientDataset | None
    test: ClientDataset | None
    summary: SiloSummary


@dataclass(frozen=True, kw_only=True)
class ReadData:
    """All records as the model reads them.

    Attributes:
        silos: by name.
        valid: records beside the silos, to watch training by.
        test: the same, for the final figure.
    """

    silos: Mapping[str, SiloExamples]
    valid: ClientDataset | None
    test: ClientDataset | None


def read_tables(terms: Terms, records: Records) -> Prepared:
    """Open the data and divide it among clients.

    Raises:
        ValueError: in words, naming the field.
    """
    columns = Columns(**terms.objective.columns, person=records.person)
    check_columns(columns, terms.objective.task)
    return prepare_silos(
        records.source(columns.image),
        columns,
        records.partition,
        labels=terms.objective.label_names,
        evaluation=terms.evaluation,
        valid_fraction=records.valid_fraction,
        limit=records.limit,
        seed=terms.seed,
        label_map=records.label_map,
    )


def digests_of(prepared: Prepared) -> dict[str, str]:
    """By client, SHA-256 of all it trains on and is scored by, in their order."""
    return {
        name: tables_digest([t for t in (silo.train, silo.valid, silo.test) if t is not None])
        for name, silo in prepared.silos.items()
    }


def read_examples(terms: Terms, prepared: Prepared, loaded: Loaded) -> ReadData:
    """Tokenise every table once.

    Raises:
        ValueError: naming a record that leaves nothing to learn from.
    """

    def examples(table: Dataset | None, where: str) -> ClientDataset | None:
        return None if table is None else examples_of(terms, table, loaded, where)

    def silo(name: str) -> SiloExamples:
        tables = prepared.silos[name]
        train = examples(tables.train, f"silo {name}, train")
        assert train is not None
        return SiloExamples(
            train=train,
            held_out=examples(tables.valid, f"silo {name}, valid"),
            test=examples(tables.test, f"silo {name}, test"),
            summary=summarize(tables.train, train.lengths, prepared.labels, tables.empty),
        )

    return ReadData(
        silos={name: silo(name) for name in prepared.silos},
        valid=examples(prepared.valid, "valid"),
        test=examples(prepared.test, "test"),
    )


def examples_of(terms: Terms, table: Dataset, loaded: Loaded, where: str) -> ClientDataset:
    """A table as the model reads it.

    Args:
        terms: say how long a text may be.
        table: readable.
        loaded: reads it.
        where: whose it is, for messages.

    Raises:
        ValueError: naming a record that leaves nothing to learn from.
    """
    if loaded.image_processor is not None:
        return image_examples(table, loaded.image_processor, where)
    return text_examples(table, loaded.tokenizer, terms.objective.max_length, where)
