"""The section ``data``: where the records are, and how they are read and divided."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from .sections import STRICT, AsTuple, Count, Name, Sorted, Text


def _as_character(value: object) -> object:
    """A tab, where a shell or YAML hands on its escape."""
    return "\t" if value == r"\t" else value


class SplitsConfig(BaseModel):
    """Which part of the data is for what."""

    model_config = STRICT

    train: Text | None = Field(
        default=None,
        description="File name inside `data.path`, or hub split, to train on; null = the one "
        "called train.",
    )
    valid: Text | None = Field(
        default=None,
        description="The one to score rounds on; null = the one called valid, validation or dev.",
    )
    test: Text | None = Field(
        default=None,
        description="The one to score the result on; null = the one called test or test_labeled.",
    )


class ColumnsConfig(BaseModel):
    """What the columns of the data are called; give those that your task needs."""

    model_config = STRICT

    text: Text | None = Field(default=None, description="Column of the text.")
    text_pair: Text | None = Field(
        default=None,
        description="Column of the second text of a pair (classification, regression; "
        "text-embedding, which needs it).",
    )
    label: Annotated[Text | tuple[Text, ...] | None, AsTuple] = Field(
        default=None,
        description="Column of the label (classification); of lists of labels, or one column of 0 "
        "and 1 for each label (classification with several labels); of the number, or several "
        "columns (regression); of the score of a pair (text-embedding).",
    )
    words: Text | None = Field(
        default=None,
        description="Column of lists of words (token-classification, with `tags`).",
    )
    tags: Text | None = Field(
        default=None,
        description="Column of lists of their tags by name, in IOB2: O, B-NAME, I-NAME "
        "(token-classification, with `words`).",
    )
    spans: Text | None = Field(
        default=None,
        description="Column of lists of entities, {start, end, label}: characters from `start` up "
        "to, and without, `end` (token-classification, with `text`).",
    )
    prompt: Text | None = Field(
        default=None,
        description="Column of the prompt, not learned (causal-lm, with `completion`).",
    )
    input: Text | None = Field(
        default=None,
        description="Column of the input that goes with an instruction in `prompt`, as in Alpaca's "
        "data; the two become one prompt in Alpaca's words (causal-lm).",
    )
    completion: Text | None = Field(
        default=None, description="Column of the completion, learned (causal-lm, with `prompt`)."
    )
    source: Text | None = Field(
        default=None, description="Column of the texts to read (seq2seq, with `target`)."
    )
    target: Text | None = Field(
        default=None,
        description="Column of the texts to write (seq2seq, with `source`); a record without one "
        "is left out.",
    )
    messages: Text | None = Field(
        default=None,
        description="Column of chat messages, a list of {role, content}, or of {from, value} as in "
        "ShareGPT (causal-lm).",
    )
    image: Text | None = Field(
        default=None, description="Column of images, or of the bytes of JPEG or PNG files."
    )


class SilosConfig(BaseModel):
    """How records belong to silos: `by` a column, or dealt out to `num` silos (a simulation)."""

    model_config = STRICT

    by: Text | None = Field(default=None, description="Column that names the silo of each record.")
    num: int | None = Field(
        default=None, ge=1, description="Number of silos to deal records out to."
    )
    split: Literal["iid", "dirichlet", "quantity", "label-skew-mild", "label-skew-severe"] = Field(
        default="iid",
        description="How records are dealt out to `num` silos: evenly; with label shares from a "
        "Dirichlet distribution; in unequal amounts; with the label skews of the FFA-LoRA paper.",
    )
    alpha: float = Field(
        default=0.5,
        gt=0,
        description="Concentration of `dirichlet` and `quantity`; smaller = more skew.",
    )


class DataConfig(BaseModel):
    """The private records."""

    model_config = STRICT

    path: Text | None = Field(
        default=None,
        description="Hub name; file (csv, tsv, json, jsonl, parquet, feather, arrow, xlsx; also "
        "packed: gz, bz2, xz, zip); URL of one; folder with train.parquet and the like; what "
        "`save_to_disk` wrote; image folder; folder of silos (`<silo>/train.jsonl`, "
        "`<silo>/<class>/*.png`, or a file a silo); or demo:triage or demo:letters. Relative "
        "paths start at the current working directory. Needed unless `federation.sites` have the "
        "records.",
        examples=["demo:triage"],
    )
    name: Text | None = Field(
        default=None, description="Configuration of a hub data set, such as sst2 of nyu-mll/glue."
    )
    delimiter: Annotated[Text | None, BeforeValidator(_as_character)] = Field(
        default=None,
        description="What separates the columns of csv and tsv files, such as ; or \\t (a tab); "
        "null = a comma, or a tab.",
    )
    encoding: Text | None = Field(
        default=None,
        description="Of text files, as Python calls it, such as latin-1; null = UTF-8.",
    )
    sheet: Text | None = Field(
        default=None,
        description="Of xlsx files, by its name; null = the only one that holds something.",
    )
    splits: SplitsConfig = SplitsConfig()
    columns: ColumnsConfig = ColumnsConfig()
    labels: Annotated[tuple[Name, ...] | dict[Name, Text] | None, AsTuple] = Field(
        default=None,
        description="The public set of labels in order of ids; as a mapping, label: description, "
        "where a name does not say what it means (for `head_init: label-prototypes`). null = taken "
        "from the data once, with a notice.",
    )
    label_map: Annotated[dict[Name, Name | None], Sorted] = Field(
        default={},
        description="What the data call a label: its name in `labels`, or null for none, so that "
        "its records are left out (where records have several, that they lack it): "
        '{"-1": null, Yes: "yes"}.',
    )
    silos: SilosConfig = SilosConfig()
    num_examples: Annotated[Count | dict[Name, Count] | None, Sorted] = Field(
        default=None,
        description="Public number of training records that each silo declares, one number or "
        "silo: number. Sampling rates, denominators and the check of delta use only this. null = "
        "rounded down from the data once, with a notice; under privacy from 200 records on.",
    )
    num_held_out: Annotated[Count | dict[Name, Count] | None, Sorted] = Field(
        default=None,
        description="Public number of held-out records that each silo declares, one number or "
        "silo: number; noisy scores (`privacy.metric_noise`) are divided by it. null = rounded "
        "down from the data once, with a notice, from 200 records on.",
    )
    max_length: int = Field(
        default=128,
        ge=1,
        description="Tokens of a text or pair, of each text where a pair is read apart; the rest "
        "is cut.",
    )
    valid_fraction: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Chance of each record to be held out for scoring when there is no valid split "
        "and `evaluation` is site or simulation. A record's own content decides, and no other one.",
    )
    person: Text | None = Field(
        default=None,
        description="Column that names the person of each record. It is not learned from; people "
        "with records at several silos are counted and the statement composes their silos.",
    )
    limit: int | None = Field(
        default=None, ge=1, description="Use at most this many records of each silo (quick looks)."
    )
