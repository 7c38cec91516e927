"""Inputs: what a federation names, opened: tables, and examples as the model reads them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from datasets import Dataset

from silotune.core import ClientDataset
from silotune.core.masks import DECODER
from silotune.data.client_tables import ClientTables, left_out_notices
from silotune.data.columns import Columns, check_columns
from silotune.data.federated_dataset import Prepared, prepare_silos
from silotune.data.images import image_examples
from silotune.data.messages import listed
from silotune.data.record_digests import tables_digest
from silotune.data.second_rows import second_row
from silotune.data.summary import SiloSummary, summarize
from silotune.data.tokenization import TextExamples, text_examples
from silotune.data.unmarked import rows_of
from silotune.models.load import Loaded
from silotune.objectives import find
from silotune.objectives.base import score_range
from silotune.terms import Terms

from .records import Records

VALID, TEST = "splits: valid", "splits: test"
"""Tables beside the silos, by the key that names them; no silo can be called so."""


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
        notices: what was left out of the silos' records, or cut; for those who may see all of them.
        own_notices: the same of each silo, for itself; of those that have any.
    """

    silos: Mapping[str, SiloExamples]
    valid: ClientDataset | None
    test: ClientDataset | None
    notices: tuple[str, ...]
    own_notices: Mapping[str, tuple[str, ...]]


def read_tables(terms: Terms, records: Records, *, scored: bool = True) -> Prepared:
    """Open the data and divide it among clients.

    Args:
        terms: of the run.
        records: as they were described.
        scored: whether there must be records to score by, if ``terms`` ask for scores.

    Raises:
        ValueError: in words, naming the field.
    """
    columns = Columns.of(terms.objective.columns, records.person)
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
        target=find(terms.objective.task).target,
        within=score_range(terms.objective),
        scored=scored,
    )


def digests_of(prepared: Prepared) -> dict[str, str]:
    """By client, SHA-256 of all it trains on and is scored by, in their order."""
    return {
        name: tables_digest([t for t in (silo.train, silo.valid, silo.test) if t is not None])
        for name, silo in prepared.silos.items()
    }


def public_digests_of(prepared: Prepared) -> dict[str, str]:
    """The same of the tables beside the silos, by what they are for."""
    tables = {VALID: prepared.valid, TEST: prepared.test}
    return {name: tables_digest([t]) for name, t in tables.items() if t is not None}


def read_examples(terms: Terms, prepared: Prepared, loaded: Loaded) -> ReadData:
    """Tokenise every table once.

    Raises:
        ValueError: naming a silo of which no record leaves anything to learn from.
    """

    def examples(table: Dataset | None, where: str) -> ClientDataset | None:
        read = None if table is None else examples_of(terms, table, loaded, where)
        return read if read is not None and len(read.lengths) else None

    def silo(name: str) -> SiloExamples:
        tables = prepared.silos[name]
        train = examples(tables.train, f"silo {name}, train")
        if train is None:
            raise ValueError(
                f"data: silo {name!r} is empty: all its {len(tables.train)} records are of special "
                "tokens only"
            )
        return SiloExamples(
            train=train,
            held_out=examples(tables.valid, f"silo {name}, valid"),
            test=examples(tables.test, f"silo {name}, test"),
            summary=_summary(tables, train, prepared.labels),
        )

    def notices(names: Collection[str]) -> tuple[str, ...]:
        tables = {name: prepared.silos[name] for name in names}
        return (*left_out_notices(tables), *_notices(terms, tables, {n: silos[n] for n in names}))

    silos = {name: silo(name) for name in prepared.silos}
    return ReadData(
        silos=silos,
        valid=examples(prepared.valid, "valid"),
        test=examples(prepared.test, "test"),
        notices=notices(silos),
        own_notices={name: own for name in silos if (own := notices([name]))},
    )


def _summary(tables: ClientTables, train: ClientDataset, labels: Sequence[str]) -> SiloSummary:
    """Of the records that are trained on."""
    table, truncated = tables.train, 0
    if isinstance(train, TextExamples):
        table, truncated = rows_of(table, train.rows), train.truncated
    empty = tables.left_out.get("train", 0) + len(tables.train) - len(table)
    return summarize(table, train.lengths, labels, empty, truncated)


def _notices(
    terms: Terms, tables: Mapping[str, ClientTables], silos: Mapping[str, SiloExamples]
) -> Iterator[str]:
    for part, of in (("valid", "held_out"), ("test", "test")):
        bare = [
            name
            for name, own in tables.items()
            if getattr(own, part) is not None and getattr(silos[name], of) is None
        ]
        if bare:
            yield (
                f"splits.{part}: all records at {listed(bare)} are of special tokens only: not "
                "scored there"
            )
    texts = {n: silo.train for n, silo in silos.items() if isinstance(silo.train, TextExamples)}
    records = sum(len(train.lengths) for train in texts.values())
    if cut := sum(train.truncated for train in texts.values()):
        most = max(texts, key=lambda name: texts[name].truncated / len(texts[name].lengths))
        yield (
            f"max_length: {cut:,} of {records:,} training records are longer than "
            f"{terms.objective.max_length} tokens and are cut, the largest part of them at {most}: "
            f"{texts[most].truncated:,} of {len(texts[most].lengths):,}"
        )
    if cut := sum(train.cut_seconds for train in texts.values()):
        second = second_row(terms.objective)
        assert second is not None, "what was cut is there"
        field = "max_target_length" if second.row == DECODER else "max_length"
        yield (
            f"{field}: {cut:,} of {records:,} training records have a {second.part} longer than "
            f"{second.max_length} tokens, which is cut"
        )
    if find(terms.objective.task).target in ("labels", "entities"):
        for name, own in silos.items():
            if absent := [label for label, count in own.summary.labels.items() if not count]:
                yield (
                    f"labels: no training record at {name} has {listed(absent)}, so that it "
                    "teaches no more of it than where it is not"
                )
    if lost := sum(train.cut_entities for train in texts.values()):
        yield f"max_length: {lost:,} entities are cut off or cut short with them; raise it"
    if unlike := sum(train.unlike_alone for train in texts.values()):
        yield (
            f"prompt: {unlike:,} of {records:,} prompts are other tokens by themselves, as when "
            "the model is used, than in front of their completion; most often because they end in "
            "a space: let completions begin with it"
        )


def examples_of(terms: Terms, table: Dataset, loaded: Loaded, where: str) -> ClientDataset:
    """A table as the model reads it.

    Args:
        terms: say how long a text may be.
        table: readable.
        loaded: reads it.
        where: whose it is, for messages.

    Raises:
        ValueError: naming a record that cannot be read.
    """
    if loaded.image_processor is not None:
        return image_examples(table, loaded.image_processor, where)
    objective = terms.objective
    second = second_row(objective)
    return text_examples(table, loaded.tokenizer, objective.max_length, where, second)
