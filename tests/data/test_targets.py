"""Targets of several labels and of numbers: what is read, left out and refused."""

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from silotune.data.columns import Columns, filled_rows, readable
from silotune.data.targets import label_counts, label_names, target_array

TEXTS = ["one", "two", "three", "four"]
NAMES = ("ash", "birch")


def read(labels, names=NAMES, target="labels", **columns):
    table = Dataset.from_dict({"text": TEXTS, **columns})
    return readable(table, Columns(text="text", label=labels), names, "the table", target=target)


def test_lists_of_labels_become_marks_and_a_record_may_have_none():
    rows = read("tags", tags=[["ash"], ["birch", "ash"], [], None])
    assert rows["label"][:] == [[1, 0], [1, 1], [0, 0], None]
    assert filled_rows(rows).tolist() == [0, 1, 2], "who has no list has not been looked at"
    kept = rows.select([0, 1, 2])
    assert target_array(kept).tolist() == [[1, 0], [1, 1], [0, 0]]
    assert label_counts(kept, NAMES) == dict(zip(NAMES, (2, 1), strict=True))


def test_lists_of_ids_with_names_and_numbers_that_are_names():
    kind = Features({"text": Value("string"), "tags": List(ClassLabel(names=["birch", "ash"]))})
    table = Dataset.from_dict({"text": TEXTS, "tags": [[0], [1], [0, 1], []]}, features=kind)
    rows = readable(table, Columns(text="text", label="tags"), NAMES, "it", target="labels")
    assert rows["label"][:] == [[0, 1], [1, 0], [1, 1], [0, 0]]
    assert label_names([table], "tags", "it", {}, "labels") == ("birch", "ash")
    numbers = read("tags", ("1", "2"), tags=[[1], [2], [1, 2], []])
    assert numbers["label"][:] == [[1, 0], [0, 1], [1, 1], [0, 0]]


def test_columns_of_0_and_1_become_marks():
    rows = read(("a", "b"), a=[1, 0, 1, None], b=[True, False, True, False])
    assert rows["label"][:] == [[1, 1], [0, 0], [1, 1], None]


def test_labels_of_lists_are_found_in_order():
    table = Dataset.from_dict({"tags": [["b", "a"], ["a"], []] * 10})
    assert label_names([table], "tags", "it", {}, "labels") == ("a", "b")


def test_a_label_that_one_record_repeats_is_still_of_one_record():
    table = Dataset.from_dict({"tags": [["a"], ["b"]] * 30 + [["rare", "rare"]]})
    with pytest.raises(ValueError, match="only one record has"):
        label_names([table], "tags", "it", {}, "labels")


def test_numbers_are_read_as_they_are_and_empty_ones_left_out():
    rows = read("days", ("days",), "numbers", days=[1.5, -2.0, None, float("nan")])
    assert rows["label"][:] == [[1.5], [-2.0], None, None]
    assert filled_rows(rows).tolist() == [0, 1]
    kept = rows.select([0, 1])
    assert target_array(kept).tolist() == [[1.5], [-2.0]]
    assert label_counts(kept, ("days",)) == {}
    several = read(("a", "b"), ("a", "b"), "numbers", a=[1, 2, 3, 4], b=[0.5] * 4)
    assert several["label"][0] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("labels", "target", "columns", "words"),
    [
        ("tags", "labels", {"tags": [["ash"], ["oak"], [], []]}, "^label: row 1 .* outside of the"),
        (
            "tags",
            "labels",
            {"tags": ["ash", "ash", "birch", "ash"]},
            "^label: .* does not hold lists of labels but text; write lists there, or name two",
        ),
        (("a", "b"), "labels", {"a": [0, 1, 2, 0], "b": [0] * 4}, "^label: row 2 .*'a'.* nor 1"),
        (
            ("a", "b"),
            "labels",
            {"a": ["x"] * 4, "b": [0] * 4},
            "'a' .* does not hold 0 and 1 but text; write 1 where",
        ),
        (("a", "c"), "labels", {"a": [0] * 4, "b": [0] * 4}, "column 'c' is not in the table"),
        (
            "days",
            "numbers",
            {"days": ["3", "4", "5", "6"]},
            "does not hold numbers but text; write numbers",
        ),
        (
            "days",
            "numbers",
            {"days": [1.0, float("inf"), 2.0, 3.0]},
            "^label: row 1 .* beyond 3.4e",
        ),
        ("days", "numbers", {"days": [1.0, 2.0, -1e39, 3.0]}, "^label: row 2 .* beyond 3.4e"),
    ],
)
def test_bad_targets_are_refused_without_a_word_of_the_record(labels, target, columns, words):
    with pytest.raises(ValueError, match=words) as refused:
        read(labels, NAMES, target, **columns)
    assert "oak" not in str(refused.value)
