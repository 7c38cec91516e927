"""Made-up letters: their marks are where they are said to be."""

from collections import Counter

import pytest

from silotune.data import load
from silotune.data.columns import Columns, filled_rows, readable
from silotune.data.demo import MARKS, letters
from silotune.data.demo.letters import TEST, TRAIN, WRITERS
from silotune.objectives.iob2 import tags_of


@pytest.fixture(scope="module")
def table():
    return letters()


def test_every_letter_says_that_it_is_synthetic(table):
    assert all(table["synthetic"])
    assert "Synthetic" in table.info.description
    assert letters(1)["letter"][:] != table["letter"][:]
    assert Counter(zip(table["clinic"], table["split"], strict=True)) == {
        **{(clinic, "train"): TRAIN for clinic in WRITERS},
        **{(clinic, "test"): TEST for clinic in WRITERS},
    }
    assert len(set(table["letter"])) == len(table)


def test_marks_are_spans_of_their_letters(table):
    read = readable(table, Columns(text="letter", spans="spans"), tags_of(MARKS), "the letters")
    assert len(filled_rows(read)) == len(table)
    by_kind = {kind: set() for kind in MARKS}
    for row in table:
        for span in row["spans"]:
            by_kind[span["label"]].add(row["letter"][span["start"] : span["end"]])
    assert all(sum(map(str.isdigit, number)) >= 5 for number in by_kind["PHONE"] | by_kind["ID"])
    assert not any(set("0123456789") & set(name) for name in by_kind["NAME"])
    assert all(any(map(str.isdigit, day)) for day in by_kind["DATE"])
    assert any(not spans for spans in table["spans"]), "some have no mark"


def test_it_is_loaded_by_its_name(table):
    assert len(load("demo:letters").train) == TRAIN * len(WRITERS)
