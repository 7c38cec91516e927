"""Inputs: what a configuration names, opened: records, base model, examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from datasets import Dataset

from silotune.config import Config
from silotune.core import ClientDataset
from silotune.data.columns import Columns, check_columns
from silotune.data.federated_dataset import Prepared, prepare_silos
from silotune.data.images import image_examples
from silotune.data.loading import Splits, load
from silotune.data.partition import Partition
from silotune.data.summary import SiloSummary, summarize
from silotune.data.tokenization import text_examples
from silotune.models.load import Loaded, load_model
from silotune.objectives import CausalLM, Classification


@dataclass(frozen=True, kw_only=True)
class SiloExamples:
    """One silo's records as the model reads them."""

    train: ClientDataset
    held_out: ClientDataset | None
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


def read_tables(config: Config) -> Prepared:
    """Open the data and divide it into silos.

    Raises:
        ValueError: in words, naming the key.
    """
    data = config.data
    columns = Columns(**data.columns.model_dump(), person=data.person)
    check_columns(columns, config.model.task)
    source = load(data.path, data.name, Splits(**data.splits.model_dump()), data.columns.image)
    return prepare_silos(
        source,
        columns,
        Partition(**data.silos.model_dump()),
        labels=known_labels(config),
        evaluation=config.evaluation,
        valid_fraction=data.valid_fraction,
        limit=data.limit,
        seed=config.train.seed,
    )


def known_labels(config: Config) -> tuple[str, ...] | None:
    """Declared labels in order of ids; none for a language model; None if only data can tell."""
    if config.model.task == "causal-lm":
        return ()
    return None if config.data.labels is None else tuple(config.data.labels)


def read_model(config: Config, labels: tuple[str, ...]) -> Loaded:
    """Open the base model.

    Raises:
        ValueError: in words, naming the key.
    """
    model = config.model
    return load_model(
        model.name_or_path,
        model.task,
        labels=labels,
        pooling=model.pooling,
        dtype=model.dtype,
        gradient_checkpointing=model.gradient_checkpointing,
    )


def read_examples(config: Config, prepared: Prepared, loaded: Loaded) -> ReadData:
    """Tokenise every table once.

    Raises:
        ValueError: naming a record that leaves nothing to learn from.
    """

    def examples(table: Dataset | None, where: str) -> ClientDataset | None:
        if table is None:
            return None
        if loaded.image_processor is not None:
            return image_examples(table, loaded.image_processor, where)
        return text_examples(table, loaded.tokenizer, config.data.max_length, where)

    def silo(name: str) -> SiloExamples:
        tables = prepared.silos[name]
        train = examples(tables.train, f"silo {name}, train")
        assert train is not None
        return SiloExamples(
            train=train,
            held_out=examples(tables.valid, f"silo {name}, valid"),
            summary=summarize(tables.train, train.lengths, prepared.labels, tables.empty),
        )

    return ReadData(
        silos={name: silo(name) for name in prepared.silos},
        valid=examples(prepared.valid, "valid"),
        test=examples(prepared.test, "test"),
    )


def objective(config: Config) -> Classification | CausalLM:
    """What the model is trained and measured by."""
    return CausalLM() if config.model.task == "causal-lm" else Classification()
