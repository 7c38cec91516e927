"""Draft: a commented configuration for somebody's own data, from what a look at them told.

What was guessed says why; what could not be told is a commented line that asks. The file that comes
out is checked like any other before it is written.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from silotune.data.guess import Guess
from silotune.data.labels import NUMBERS
from silotune.objectives import find, say_something
from silotune.objectives.registry import kind_of

from .fields import in_keys

_STANDARD = (
    "declare about the mean of the numbers and their standard deviation, from what is known "
    "anyway; they become public, so they were not computed"
)
_SCORES = (
    "declare the lowest and the highest score that there may be, from what is known anyway; they "
    "become public, so they were not computed"
)
DECLARED: Mapping[str, str] = {
    "target_mean": _STANDARD,
    "target_scale": _STANDARD,
    "score_range": _SCORES,
}
"""Public numbers of a task that have no default."""

_MARKS = "; it holds lists of labels, or give several columns of 0 and 1, such as [a, b]"
"""How records may have several labels."""

STEPS, ROUNDS = 5, 8

MANY, MANY_SCALE, MANY_RATE, MANY_ROUNDS = 20, 5, 8, 12
"""From so many labels on that begin at their meaning, what did well on BANKING77
(docs/results): the scale of a head, the rate, and rounds. A label's own vector meets few records
there, and with usual settings hardly moves."""

LARGEST_BATCH, FEW = 256, 100

LENGTHS = (32, 64, 128, 256, 512, 1024, 2048)

LONGEST_GUESS = 512
"""Of a record whose tokens were not counted: what most models read."""

WIDTH = 96

_COMMENT: Mapping[str, Any] = {"initial_indent": "  # ", "subsequent_indent": "  # "}

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_RESERVED = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a configuration is drafted from.

    Attributes:
        path: of the data, as it was given.
        found: what a look at them told.
        reading: ``delimiter``, ``encoding`` and ``sheet``, where the usual ones do not do.
        model: a name or folder; None for a small public one.
        sizes: silo -> its number of training records; empty while that is not known.
        tokens: of all but the longest twentieth of the records, by the model's own tokenizer; None
            if that is not at hand, or the columns are not known.
        longest: tokens that this tokenizer lets through.
    """

    path: str
    found: Guess
    reading: Mapping[str, str]
    model: str | None = None
    sizes: Mapping[str, int] | None = None
    tokens: int | None = None
    longest: int = LENGTHS[-1]


def drafted(draft: Draft) -> str:
    """The file."""
    parts = (_head(draft), _model(draft), _data(draft), _targets(draft.found), _rest(draft))
    return "\n".join(line for part in parts for line in part) + "\n"


def open_questions(draft: Draft) -> list[str]:
    """What has to be answered before this runs, a sentence each."""
    several = find(draft.found.task).target == "labels"
    asked = [
        f"data.columns.{part}: no column was recognised; fill in the line, with one of: "
        f"{', '.join(candidates) or 'none there'}{_MARKS if several and part == 'label' else ''}"
        for part, candidates in draft.found.open.items()
    ]
    if keys := _to_declare(draft.found):
        named = ", ".join(f"targets.{key}" for key in keys)
        asked.append(f"{named}: {DECLARED[keys[0]]}")
    numbers = ", ".join(draft.found.numbers) if "label" in draft.found.open else ""
    held = f"data.columns.label: {numbers} holds numbers with fractions; {in_keys(NUMBERS)}"
    return [*asked, held] if numbers else asked


def unused_columns(draft: Draft) -> str | None:
    """A sentence about columns that play no part, if there are any, and how one of them would."""
    names = draft.found.unused
    if not names:
        return None
    return f"not used: {_few(names)}{_asked(draft.found)}"


def _to_declare(found: Guess) -> list[str]:
    """Public numbers that the task of the data needs."""
    needed = {f.name for f in fields(kind_of(found.task)) if f.default is MISSING}
    return [key for key in DECLARED if key in needed]


def _asked(found: Guess) -> str:
    """What one of the columns that are not used may be."""
    if find(found.task).target == "none":
        return (
            " (is one of them a label, or a number to learn? --task classification or regression, "
            "or data.columns.label)"
            if found.numbers
            else " (is one of them a label? --task classification, or data.columns.label)"
        )
    if found.second_texts:
        second = _text(found.second_texts[0])
        return f" (is {second} a second text of each record? data.columns.text_pair)"
    return ""


def declared(sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes as they may be declared in public: rounded down to two digits, or to tens."""

    def down(size: int) -> int:
        step = 10 ** max(1, len(str(size)) - 2)
        return max(size // step * step, 1) if size >= step else size

    return {silo: down(size) for silo, size in sizes.items()}


def _head(draft: Draft) -> Iterator[str]:
    yield f"# silotune: drafted for {draft.path} by looking at it once. Every guess says why."
    yield "# Every key, with its default: docs/configuration.md."


def _model(draft: Draft) -> Iterator[str]:
    task = find(draft.found.task)
    yield "\nmodel:"
    if draft.model is None:
        yield "  # A small public model; any other hub name, or a folder that holds one."
    yield f"  name_or_path: {_text(draft.model or task.usual_model)}"
    yield f"  task: {task.name}"
    if not task.means:
        return
    yield "  # What the head reads: `mean` averages all tokens, `model` is the architecture's own."
    yield "  pooling: mean"
    if say_something(draft.found.labels or None):
        yield "  # The labels are words, so the head begins at their embeddings: public, and free."
        yield "  head_init: label-prototypes"
        if _has_many(draft.found):
            yield "  # Each of many labels meets few records: its vector moves so much faster."
            yield f"  head_scale: {MANY_SCALE}"
            yield "  head_bias: frozen"
    elif draft.found.labels:
        yield "  # The labels say nothing by themselves. With descriptions of them (`labels` below,"
        yield "  # as a mapping of label: description) label-prototypes is a better start."
        yield "  head_init: random"


def _has_many(found: Guess) -> bool:
    """Whether a head begins at the meaning of many labels."""
    begins = find(found.task).means and say_something(found.labels or None)
    return begins and find(found.task).target == "label" and len(found.labels) >= MANY


def _data(draft: Draft) -> Iterator[str]:
    found = draft.found
    yield "\ndata:"
    yield f"  path: {_text(draft.path)}"
    if draft.reading:
        yield "  # So it looks; without this the file cannot be read."
    yield from (f"  {key}: {_text(value)}" for key, value in draft.reading.items())
    yield "  # By their names and what they hold."
    named = ", ".join(f"{part}: {_text(column)}" for part, column in found.columns.items())
    if found.open:
        yield "  columns:"
        yield from (f"    {part}: {_text(column)}" for part, column in found.columns.items())
        for part, candidates in found.open.items():
            yield f"    # {part}:    # WHICH COLUMN? perhaps {_few(candidates)}"
    else:
        yield f"  columns: {{{named}}}"
    if unused := unused_columns(draft):
        yield from textwrap.wrap(f"{unused[0].upper()}{unused[1:]}.", WIDTH, **_COMMENT)
    yield from _silos(draft)
    yield from _labels(found)
    if found.unlabelled:
        yield "  # Some records have the label -1, which usually means none: they are left out."
        yield '  label_map: {"-1": null}'
    if found.person:
        yield f"  # The column {_text(found.person)} may name people; with this line, those with"
        yield "  # records at several silos are counted."
        yield f"  # person: {_text(found.person)}"
    if draft.tokens:
        length = min(_length(draft.tokens), draft.longest)
        yield "  # Tokens of a record; the rest is cut. By the model's own tokenizer all but a"
        yield f"  # twentieth of the records have {draft.tokens} or fewer."
        yield f"  max_length: {length}"
    elif found.tokens:
        yield "  # Tokens of a record; the rest is cut. All but a twentieth of the records have"
        yield f"  # about {found.tokens} or fewer, if four letters make a token: the model's own"
        yield "  # tokenizer was not asked. silotune data counts by it, and tells how many are cut."
        yield f"  max_length: {min(_length(found.tokens), LONGEST_GUESS)}"


def _length(tokens: int) -> int:
    return next((n for n in LENGTHS if n >= tokens), LENGTHS[-1])


def _silos(draft: Draft) -> Iterator[str]:
    found = draft.found
    if found.by:
        yield f"  # The column {_text(found.by)} names the silo of each record."
        yield f"  silos: {{by: {_text(found.by)}}}"
    elif not found.divided:
        yield "  # WHICH COLUMN NAMES THE SILO of a record? None was recognised, so records are"
        yield "  # dealt out to three: a simulation. Instead:"
        yield f"  # silos: {{by: ...}}    # perhaps {_few(found.may_name_silos)}"
        if draft.sizes:
            yield "  # and num_examples below by their names, or null, which counts them."
        yield "  silos: {num: 3, split: iid}"
    if not draft.sizes:
        yield "  # What each silo declares in public as its number of training records: a number,"
        yield "  # or one by silo. Under privacy it must be given where a silo has fewer than 200."
        yield "  # num_examples: ..."
        return
    sizes = declared(draft.sizes)
    yield "  # What each silo declares in public as its number of training records: the counted"
    yield "  # ones, rounded down. Noise goes by these alone."
    if len(set(sizes.values())) == 1:
        yield f"  num_examples: {next(iter(sizes.values()))}"
    else:
        yield "  num_examples:"
        yield from (f"    {_text(silo)}: {size}" for silo, size in sizes.items())


def _targets(found: Guess) -> Iterator[str]:
    keys = _to_declare(found)
    if not keys:
        return
    why = DECLARED[keys[0]]
    yield "\ntargets:"
    yield from textwrap.wrap(f"{why[0].upper()}{why[1:]}.", WIDTH, **_COMMENT)
    yield from (f"  # {key}: ..." for key in keys)


def _labels(found: Guess) -> Iterator[str]:
    if not found.labels:
        return
    yield f"  # All labels of the data ({len(found.labels)}), in order of ids. They become public"
    yield "  # with this file and the model."
    if find(found.task).prototypes:
        yield "  # Where a name does not say what it means, make this a mapping of"
        yield "  # label: description."
    yield "  labels:"
    yield from (f"    - {_text(label)}" for label in found.labels)


def _rest(draft: Draft) -> Iterator[str]:
    smallest = min(declared(draft.sizes).values()) if draft.sizes else FEW
    batch = max(min(LARGEST_BATCH, smallest // 2), 1)
    many = _has_many(draft.found)
    yield "\nmethod:"
    yield "  # A is frozen, B is trained; `silotune methods` lists the others."
    yield "  name: ffa-lora"
    yield "  r: 8"
    yield "\nprivacy:"
    yield "  # Each record is protected. none: nothing is; then delete target_epsilon."
    yield "  unit: example"
    yield "  # The budget of each silo for the whole run: 1 is strong, 8 is weak."
    yield "  target_epsilon: 6"
    yield "  target_delta: 1e-5"
    yield "\ntrain:"
    if smallest < FEW:
        yield f"  # The smallest silo declares {smallest} records: expect little under privacy, and"
        yield "  # see what `silotune plan` says of noise."
    yield "  # Few steps on large batches (half of the smallest silo, at most"
    yield f"  # {LARGEST_BATCH}) drown the noise of privacy; without it, more rounds learn more."
    yield f"  num_rounds: {MANY_ROUNDS if many else ROUNDS}"
    yield f"  local_steps: {STEPS}"
    yield f"  batch_size: {batch}"
    if many:
        yield "  # Above the usual rate, which moves many labels too slowly. If nothing is hidden,"
        yield "  # delete both lines: the usual ones do then."
        yield "  optimizer: sgd"
        yield f"  learning_rate: {MANY_RATE}"
    else:
        yield "  # Falling to 0, so that the last rounds add little noise."
        yield "  lr_scheduler_type: linear"
        yield "  # Optimiser and rate are the usual ones of method and privacy, which silotune plan"
        yield "  # prints; if training goes wrong or slowly, change the rate first:"
        yield "  # learning_rate: ..."
    yield "  seed: 0"
    yield "\n# simulation: one machine sees everything, and epsilon does not cover the scores."
    yield "# site: each silo keeps its own scores. public: valid and test are for everyone's eyes."
    yield "evaluation: simulation"


def _few(candidates: Sequence[str]) -> str:
    return ", ".join(map(_text, candidates[:8])) or "a new column"


def _text(text: str) -> str:
    """As YAML, which JSON is; plain where that is safe."""
    safe = _PLAIN.fullmatch(text) and text.lower() not in _RESERVED
    return text if safe else json.dumps(text, ensure_ascii=False)
