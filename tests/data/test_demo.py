import json
import math
from collections import Counter
from hashlib import sha256

import pytest

from silotune.data.demo import CLINICS, TRIAGE_LABELS, triage
from silotune.data.demo.phrases import complaints, shared_symptoms

DIGEST = "9a830b1755263940a979ffd3d75d3ad3a23bbf8f4617071e280ff7c15fe71e23"


@pytest.fixture(scope="module")
def records():
    return triage().to_list()


def part(records, **wanted):
    return [r for r in records if all(r[k] == v for k, v in wanted.items())]


def test_every_record_says_that_it_is_synthetic(records):
    assert all(r["synthetic"] for r in records)
    assert "Synthetic" in triage().info.description


def test_equal_seeds_give_equal_notes_and_others_give_others(records):
    assert triage(0).to_list() == records
    ours, theirs = {r["note"] for r in records}, set(triage(1)["note"])
    assert len(ours & theirs) < 0.1 * len(ours)


def test_the_notes_are_the_same_for_ever(records):
    """Reports of demo runs can be compared over versions."""
    text = json.dumps(records, ensure_ascii=False)
    assert sha256(text.encode()).hexdigest() == DIGEST


def test_no_two_notes_are_the_same(records):
    notes = {(r["clinic"], r["note"]) for r in records}
    assert len(notes) == len(records)


def test_sizes_are_those_of_the_clinics(records):
    train = Counter(r["clinic"] for r in part(records, split="train"))
    assert train == {name: clinic.train for name, clinic in CLINICS.items()}


def test_the_test_part_has_every_clinic_and_department_equally_often(records):
    cells = Counter((r["clinic"], r["department"]) for r in part(records, split="test"))
    assert len(cells) == len(CLINICS) * len(TRIAGE_LABELS)
    assert set(cells.values()) == {25}


def test_the_clinics_see_different_patients(records):
    most_common = {
        name: Counter(
            r["department"] for r in part(records, clinic=name, split="train")
        ).most_common(1)[0][0]
        for name in CLINICS
    }
    assert len(set(most_common.values())) == len(CLINICS)


def test_the_clinics_write_differently(records):
    notes = {name: [r["note"] for r in part(records, clinic=name)] for name in CLINICS}

    def share(clinic, sign):
        return sum(map(sign, notes[clinic])) / len(notes[clinic])

    assert share("village", str.islower) == 1.0
    assert share("university", lambda note: note.endswith(".")) == 1.0
    assert share("harbour", lambda note: "pc " in note) == 1.0
    assert share("harbour", lambda note: "w/" in note or "SOB" in note) > 0.1


def test_notes_are_short(records):
    words = sorted(len(r["note"].split()) for r in records)
    assert words[0] >= 3
    assert words[len(words) // 2] in range(10, 20)
    assert words[-1] <= 35


def test_counting_words_is_better_than_chance_and_far_from_enough(records):
    """Naive Bayes over single words: which words occur must not give the department away."""
    counts = {department: Counter() for department in TRIAGE_LABELS}
    for r in part(records, split="train"):
        counts[r["department"]].update(r["note"].lower().split())
    vocabulary = len(set().union(*counts.values()))
    totals = {department: c.total() + vocabulary for department, c in counts.items()}

    def guess(note):
        return max(
            TRIAGE_LABELS,
            key=lambda d: sum(
                math.log((counts[d][word] + 1) / totals[d]) for word in note.lower().split()
            ),
        )

    test = part(records, split="test")
    accuracy = sum(guess(r["note"]) == r["department"] for r in test) / len(test)
    assert 0.4 < accuracy < 0.8


def test_every_department_has_its_own_and_shared_complaints():
    assert set(complaints()) == set(TRIAGE_LABELS)
    shared = Counter(department for one in shared_symptoms() for department in one.details)
    assert min(shared[department] for department in TRIAGE_LABELS) >= 3


def test_no_complaint_belongs_to_two_departments():
    own = [voices for bank in complaints().values() for voices in bank]
    for voice in (0, 1):
        assert max(Counter(pair[voice] for pair in own).values()) == 1
