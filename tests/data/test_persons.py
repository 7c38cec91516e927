"""Whose the records are: read, counted where all are seen anyway, and forgotten."""

import pytest
from datasets import Dataset

from silotune.data import Columns, Partition, Source, Tables, check_columns, prepare_silos
from silotune.data.persons import People, count_people, notices

COLUMNS = Columns(text="note", label="kind", person="who")
WHO = ["ann", "ann", "bob", "eve", "bob", None, None, "dan"]
CLINIC = ["east", "east", "east", "east", "west", "west", "west", "west"]


def table(who=WHO, clinic=CLINIC) -> Dataset:
    n = len(who)
    return Dataset.from_dict(
        {
            "note": [f"note {i}" for i in range(n)],
            "kind": [i % 2 for i in range(n)],
            "who": who,
            "clinic": clinic,
        }
    )


def prepare(source, **more):
    settings = {
        "columns": COLUMNS,
        "silos": Partition(by="clinic"),
        "labels": ("bad", "good"),
        "evaluation": "simulation",
        "valid_fraction": 0.1,
        "limit": None,
        "seed": 0,
    }
    return prepare_silos(source, **(settings | more))


PUBLIC = table().remove_columns(["who", "clinic"])


def test_people_at_several_silos_are_counted_in_a_simulation_and_then_forgotten():
    prepared = prepare(Source(train=table(), valid=PUBLIC))
    first, second = prepared.notices
    assert first.startswith("person: 1 people have records at several silos (east, west);")
    assert "one person has 2 records at one silo" in second
    for silo in prepared.silos.values():
        assert silo.train.column_names == ["text", "label"]


@pytest.mark.parametrize("evaluation", ["public", "site"])
def test_outside_a_simulation_nobody_counts(evaluation):
    source = Source(train=table(WHO * 5, CLINIC * 5), valid=PUBLIC)
    prepared = prepare(source, evaluation=evaluation, valid_fraction=0.4)
    (notice,) = prepared.notices
    assert "nobody may count" in notice
    assert not any(digit in notice for digit in "0123456789")
    alone = Source(train=table(["ann"] * 8).select(range(4)), valid=PUBLIC)
    if evaluation == "public":
        assert prepare(alone, evaluation=evaluation).notices == prepared.notices
    for silo in prepared.silos.values():
        assert silo.train.column_names == ["text", "label"]
        assert silo.valid is None or silo.valid.column_names == ["text", "label"]


def test_records_without_a_person_are_somebody_each():
    nobody = {"east": rows([None, None]), "west": rows([None, None])}
    assert count_people(nobody) == People(shared=0, silos=(), most=1)
    assert list(notices(count_people(nobody))) == []


def rows(people) -> Dataset:
    from datasets import Features, Value

    return Dataset.from_dict({"person": people}, features=Features({"person": Value("string")}))


def test_numbers_are_names_whatever_reader_made_floats_of_them():
    who = [1.0, 2.0, 1.0, float("nan"), 1.0, 3.0, float("nan"), 4.0]
    first, second = prepare(Source(train=table(who), valid=PUBLIC)).notices
    assert "1 people have records at several silos (east, west)" in first
    assert "one person has 2 records" in second


def test_silos_that_are_folders_need_people_only_to_train():
    silos = {
        "east": Tables(train=table(), valid=PUBLIC),
        "west": Tables(train=table()),
    }
    prepared = prepare(Source(silos=silos, valid=PUBLIC), silos=Partition())
    assert prepared.notices[0].startswith("person: 4 people have records at several silos")


def test_a_missing_column_is_named_by_its_key():
    with pytest.raises(ValueError, match=r"^person: column 'who' is not in the train table"):
        prepare(Source(train=table().remove_columns("who"), valid=PUBLIC))


def test_a_person_is_no_part_of_a_task():
    check_columns(COLUMNS, "sequence-classification")
    with pytest.raises(ValueError, match=r"here are: text$"):
        check_columns(Columns(text="note", person="who"), "sequence-classification")
    with pytest.raises(ValueError, match="named twice"):
        check_columns(Columns(text="a", label="b", person="b"), "sequence-classification")
