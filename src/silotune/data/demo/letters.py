"""Letters of three clinics, with the marks of whom they are about: SYNTHETIC, of no real person.

Names are put together from syllables, and dates, numbers of records and of telephones are drawn, so
that nobody has to be hidden in them. Each clinic writes them in its own way. Doses, pressures and
ages are numbers that mark nobody, and some letters have no mark at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from datasets import Dataset, DatasetInfo

from silotune.core import seed_of

MARKS = ("NAME", "DATE", "PHONE", "ID")
"""Types of entities."""

TRAIN, TEST = 3000, 150
"""Letters of each clinic."""

_FIRST = ("Al", "Be", "Ca", "Do", "El", "Fi", "Ga", "Ha", "Jo", "Ka", "Li", "Ma", "Ni", "Ro", "Se")
_MIDDLE = ("bri", "den", "la", "mi", "no", "ra", "sa", "tin", "va", "zel")
_LAST = ("berg", "by", "den", "field", "ham", "kin", "low", "man", "ning", "son", "ter", "wick")
_MONTHS = ("January", "March", "April", "June", "August", "September", "October", "December")
_DRUGS = ("metformin", "lisinopril", "warfarin", "insulin", "amoxicillin", "ibuprofen")
_COMPLAINTS = (
    *("chest pain", "a cough", "knee pain", "headaches", "a rash", "back pain", "dizziness"),
    *("shortness of breath", "a fall at home", "raised blood pressure", "a swollen ankle"),
)

_PLACE = re.compile(r"\{([A-Z]+)\}")


@dataclass(frozen=True, kw_only=True)
class Writer:
    """How one clinic writes.

    Attributes:
        sentences: templates; ``{NAME}`` and the like are marked, ``{now}`` and the like are not.
        names: of persons: templates of ``{first}`` and ``{last}``.
        dates: templates of ``{d}``, ``{m}``, ``{month}`` and ``{y}``.
        phones: digits, each written 0.
        ids: the same.
    """

    sentences: Sequence[str]
    names: Sequence[str]
    dates: Sequence[str]
    phones: Sequence[str]
    ids: Sequence[str]


WRITERS: Mapping[str, Writer] = {
    "harbour": Writer(
        sentences=(
            "{NAME} seen {DATE} with {now}.",
            "MRN {ID}. pc {now}, BP {high}/{low}.",
            "tel {PHONE}, ask for {NAME}.",
            "started {drug} {dose} mg, review {DATE}.",
            "{age}y, {now} for {few} days. no fever.",
            "r/f by Dr {NAME}, {drug} {dose} mg stopped.",
        ),
        names=("{last}, {first}", "{first} {last}", "{last}"),
        dates=("{d}/{m}/{y}", "{d}/{m}", "{d}.{m}.{y}"),
        phones=("020 0000 000", "020-0000000"),
        ids=("H000000", "H-00000"),
    ),
    "university": Writer(
        sentences=(
            "We saw {NAME}, a patient of {age} years, on {DATE} because of {now}.",
            "The hospital number is {ID}.",
            "Please call {NAME} on {PHONE} with the results.",
            "Treatment with {drug}, {dose} mg daily, was begun on {DATE}.",
            "The blood pressure was {high}/{low} and the pulse {pulse}.",
            "There is no history of {now}, and {drug} was well tolerated.",
            "Yours sincerely, Dr {NAME}.",
        ),
        names=("{first} {last}", "{first} {initial}. {last}"),
        dates=("{d} {month} {y}", "{month} {d}, {y}", "the {d}th of {month}"),
        phones=("+44 20 0000 0000", "(020) 0000 0000"),
        ids=("UH/000/0000", "UH/00/00000"),
    ),
    "village": Writer(
        sentences=(
            "hello its {NAME}, i have had {now} since {DATE}",
            "my number is {PHONE} if you need me",
            "this is {NAME} calling for my mum {NAME}, she is {age}",
            "card no {ID}",
            "i take {drug} {dose} and it does not help with {now}",
            "can i come on {DATE} instead?",
            "it is {now} again, {few} times this week",
        ),
        names=("{first}", "{first} {last}", "{last}", "{lower}"),
        dates=("{d} {month}", "{month} {d}", "{d}/{m}"),
        phones=("07000 000000", "0700 0000 000"),
        ids=("000-000-000", "00 0000 00"),
    ),
}


def letters(seed: int = 0) -> Dataset:
    """Synthetic letters: 9,000 for training, 450 for testing; the same for equal seeds.

    Columns: ``clinic`` (the silo), ``letter``, ``spans`` (lists of {start, end, label}), ``split``
    ('train' or 'test') and ``synthetic`` (always true).
    """
    info = DatasetInfo(description="Synthetic letters, made by silotune. No real patients.")
    return Dataset.from_list([row for name in WRITERS for row in _letters(name, seed)], info=info)


def _letters(name: str, seed: int) -> Iterator[dict[str, object]]:
    """All letters of a clinic; no two are the same."""
    draw, seen = Random(seed_of("letters", seed, name)), set[str]()
    for i in range(TEST + TRAIN):
        while (letter := _letter(draw, WRITERS[name]))[0] in seen:
            pass
        seen.add(letter[0])
        yield {
            "clinic": name,
            "letter": letter[0],
            "spans": letter[1],
            "split": "test" if i < TEST else "train",
            "synthetic": True,
        }


def _letter(draw: Random, writer: Writer) -> tuple[str, list[dict[str, object]]]:
    """Some sentences, and where what marks somebody stands in them."""
    sentences = draw.sample(writer.sentences, k=draw.randint(1, 3))
    plain = re.sub(r"\{([a-z]+)\}", lambda m: _plain(draw, m.group(1)), " ".join(sentences))
    text, spans, end = "", list[dict[str, object]](), 0
    for place in _PLACE.finditer(plain):
        text += plain[end : place.start()]
        mark = _mark(draw, writer, place.group(1))
        spans.append({"start": len(text), "end": len(text) + len(mark), "label": place.group(1)})
        text, end = text + mark, place.end()
    return text + plain[end:], spans


def _plain(draw: Random, what: str) -> str:
    """What marks nobody."""
    numbers = {"age": (18, 95), "high": (100, 190), "low": (55, 99), "pulse": (50, 120)}
    if what in numbers or what == "few":
        return str(draw.randint(*numbers.get(what, (2, 9))))
    if what == "dose":
        return str(draw.choice((5, 10, 20, 250, 500, 850, 1000)))
    return draw.choice(_DRUGS if what == "drug" else _COMPLAINTS)


def _mark(draw: Random, writer: Writer, kind: str) -> str:
    """What marks somebody, as a clinic writes it."""
    if kind == "NAME":
        first = draw.choice(_FIRST) + draw.choice(_MIDDLE)
        last = draw.choice(_FIRST) + draw.choice(_MIDDLE) + draw.choice(_LAST)
        initial, lower = draw.choice("ABCDEFGH"), first.lower()
        return draw.choice(writer.names).format(
            first=first, last=last, initial=initial, lower=lower
        )
    if kind == "DATE":
        return draw.choice(writer.dates).format(
            d=draw.randint(4, 20),
            m=draw.randint(1, 12),
            month=draw.choice(_MONTHS),
            y=draw.randint(2019, 2026),
        )
    shape = draw.choice(writer.phones if kind == "PHONE" else writer.ids)
    return "".join(str(draw.randint(0, 9)) if c == "0" else c for c in shape)
