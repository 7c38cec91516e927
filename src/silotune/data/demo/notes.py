"""The demo's data: SYNTHETIC triage notes of three clinics. No real person is behind any of them.

A note names the present complaint and, in half of the notes, another one that is over, denied or a
relative's. So the words alone mislead and their relation decides: a frozen encoder with a linear
head stays well below a fine-tuned one. Some notes are ambiguous, so no model is always right. The
clinics differ in how they write (telegram style, full sentences, the patient's own words) and in
which patients come.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from datasets import Dataset, DatasetInfo

from silotune.core import seed_of

from .phrases import complaints, shared_symptoms

TRIAGE_LABELS: Mapping[str, str] = {
    "cardiology": "heart, blood pressure and circulation problems",
    "dermatology": "skin, hair and nail problems",
    "ear-nose-throat": "ear, nose, throat and sinus problems",
    "gastroenterology": "stomach, bowel and liver problems",
    "neurology": "brain and nerve problems, headache, seizure, numbness",
    "orthopaedics": "bone, joint and muscle problems, injuries",
    "pulmonology": "lung and breathing problems, cough, asthma",
    "urology": "bladder, kidney and urinary problems",
}
"""Department -> short public description, in order of label ids."""

TEST_PER_CELL = 25  # records for each clinic and department
DISTRACTED = 0.5  # share of notes that also name another department's complaint
SHARED_SYMPTOM = 0.45  # share of complaints that several departments see ...
NO_DETAIL = 0.15  # ... and of those, the ones without the detail that decides


@dataclass(frozen=True, kw_only=True)
class Clinic:
    """How one clinic writes and whom it sees.

    Attributes:
        train: number of training records.
        mix: relative frequency of each department, in the order of ``TRIAGE_LABELS``.
        voice: 0 the clinician's words, 1 the patient's.
        onsets: when it began.
        plain: templates of a note with one complaint.
        distracted: templates that also name ``{other}``, which is not why the patient is here.
        abbreviated: chance of a long word that has an abbreviation to become it.
        mistyped: chance of a long word to get a typing error.
    """

    train: int
    mix: tuple[int, ...]
    voice: int
    onsets: tuple[str, ...]
    plain: tuple[str, ...]
    distracted: tuple[str, ...]
    abbreviated: float = 0.0
    mistyped: float = 0.0


CLINICS: Mapping[str, Clinic] = {
    "harbour": Clinic(
        train=4000,
        mix=(28, 3, 3, 8, 4, 24, 24, 6),
        voice=0,
        onsets=("today", "2 days", "3 wk", "since Sunday", "on and off", "overnight"),
        plain=(
            "{age}{sex} pc {now} {onset}",
            "pc {now}, {onset}, {age}{sex}",
        ),
        distracted=(
            "{age}{sex} pc {now}. PMH {other}",
            "{age}{sex} PMH {other}. pc {now}",
            "pc {now} {onset}, denies {other}",
            "denies {other}. pc {now} {onset}",
            "FH {other}. {age}{sex} pc {now}",
        ),
        abbreviated=0.6,
    ),
    "university": Clinic(
        train=5000,
        mix=(8, 6, 6, 24, 28, 4, 4, 20),
        voice=0,
        onsets=("since this morning", "for two days", "for three weeks", "for months", "since May"),
        plain=(
            "This {person} of {age} presents with {now}.",
            "The patient presents with {now} {onset}.",
        ),
        distracted=(
            "The patient presents with {now} and once had {other}.",
            "Having once had {other}, this {person} presents with {now}.",
            "The patient denies {other} and presents with {now}.",
            "This {person} presents with {now}, not with {other}.",
            "A brother has {other}; the patient presents with {now}.",
        ),
    ),
    "village": Clinic(
        train=3000,
        mix=(5, 28, 24, 8, 5, 18, 5, 7),
        voice=1,
        onsets=("since yesterday", "all week", "for a fortnight", "since easter", "again today"),
        plain=(
            "hello i have got {now} {onset}",
            "im {age} and have got {now}",
        ),
        distracted=(
            "had {other} before, now i have got {now}",
            "i have got {now}, had {other} before",
            "not {other}, i have got {now}",
            "i have got {now}, never {other}",
            "mum has {other} but i have got {now}",
        ),
        mistyped=0.08,
    ),
}

ABBREVIATIONS: Mapping[str, str] = {
    "without": "w/o",
    "with": "w/",
    "left": "L",
    "right": "R",
    "blood pressure": "BP",
    "breathlessness": "SOB",
    "shortness of breath": "SOB",
    "after": "p/",
    "abdominal": "abd",
    "recurrent": "rec",
    "headache": "HA",
    "before": "a/",
}


def triage(seed: int = 0) -> Dataset:
    """Synthetic triage notes: 12,000 for training, 600 for testing; the same for equal seeds.

    Columns: ``clinic`` (the silo), ``note``, ``department`` (the label), ``split`` ('train' or
    'test') and ``synthetic`` (always true). The test notes have every clinic and department
    equally often; the training notes follow each clinic's own case mix.
    """
    info = DatasetInfo(description="Synthetic triage notes, made by silotune. No real patients.")
    records = [record for name in CLINICS for record in _records(name, seed)]
    return Dataset.from_list(records, info=info)


def _records(name: str, seed: int) -> Iterator[dict[str, str | bool]]:
    """All records of one clinic; no two have the same note."""
    rng, clinic = Random(seed_of("triage", seed, name)), CLINICS[name]
    test = [department for department in TRIAGE_LABELS for _ in range(TEST_PER_CELL)]
    train = rng.choices(list(TRIAGE_LABELS), clinic.mix, k=clinic.train)
    seen: set[str] = set()
    for i, department in enumerate(test + train):
        while (note := _note(rng, clinic, department)) in seen:
            pass
        seen.add(note)
        yield {
            "clinic": name,
            "note": note,
            "department": department,
            "split": "test" if i < len(test) else "train",
            "synthetic": True,
        }


def _note(rng: Random, clinic: Clinic, department: str) -> str:
    """One note for a patient who needs ``department``."""
    elsewhere = rng.choice([other for other in TRIAGE_LABELS if other != department])
    templates = clinic.distracted if rng.random() < DISTRACTED else clinic.plain
    sex = rng.choice("fm")
    note = rng.choice(templates).format(
        now=_complaint(rng, department, clinic.voice),
        other=_complaint(rng, elsewhere, clinic.voice),
        onset=rng.choice(clinic.onsets),
        age=rng.randint(18, 89),
        sex=sex,
        person="woman" if sex == "f" else "man",
    )
    return _mistype(rng, _abbreviate(rng, note, clinic.abbreviated), clinic.mistyped)


def _complaint(rng: Random, department: str, voice: int) -> str:
    """What such a patient complains of."""
    if rng.random() >= SHARED_SYMPTOM:
        return rng.choice(complaints()[department])[voice]
    symptom = rng.choice([one for one in shared_symptoms() if department in one.details])
    if rng.random() < NO_DETAIL:
        return symptom.words[voice]
    return f"{symptom.words[voice]} {symptom.details[department][voice]}"


def _abbreviate(rng: Random, note: str, chance: float) -> str:
    """Telegram style."""
    for word, short in ABBREVIATIONS.items():
        if rng.random() < chance:
            note = re.sub(rf"\b{word}\b", short, note)
    return note


def _mistype(rng: Random, note: str, chance: float) -> str:
    """Typed on a phone: some long words lack a letter or have two swapped."""

    def slip(match: re.Match[str]) -> str:
        word = match.group()
        if rng.random() >= chance:
            return word
        i = rng.randrange(1, len(word) - 1)
        swapped = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        return rng.choice((word[:i] + word[i + 1 :], swapped))

    return re.sub(r"[a-z]{5,}", slip, note)
