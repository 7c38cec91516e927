import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from hypothesis import given
from hypothesis import strategies as st

from silotune.data.columns import (
    Columns,
    check_columns,
    filled_rows,
    readable,
    slices,
)

TEXT = Columns(text="note", label="kind")


def read(columns=TEXT, labels=("bad", "good"), **data):
    return readable(Dataset.from_dict(data), columns, labels, "the train table")


def refused(words, *args, **kwargs):
    with pytest.raises(ValueError, match=words):
        read(*args, **kwargs)


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("sequence-classification", Columns(text="a", label="b")),
        ("sequence-classification", Columns(text="a", text_pair="c", label="b")),
        ("causal-lm", Columns(text="a")),
        ("causal-lm", Columns(prompt="a", completion="b")),
        ("causal-lm", Columns(messages="a")),
        ("image-classification", Columns(image="a", label="b")),
    ],
)
def test_forms_of_each_task(task, columns):
    check_columns(columns, task)


@pytest.mark.parametrize(
    ("task", "columns", "words"),
    [
        (
            "sequence-classification",
            Columns(text="a"),
            "takes text \\+ label, or text \\+ text_pair \\+ label; here are: text$",
        ),
        ("causal-lm", Columns(), "here are: nothing"),
        ("causal-lm", Columns(text="a", label="b"), "causal-lm takes text, or prompt"),
        ("image-classification", Columns(text="a", label="b"), "takes image \\+ label"),
        ("sequence-classification", Columns(text="a", label="a"), "column 'a' is named twice"),
    ],
)
def test_other_forms_are_refused(task, columns, words):
    with pytest.raises(ValueError, match=words) as caught:
        check_columns(columns, task)
    assert str(caught.value).partition(":")[0] in ("columns", *columns.named())


def test_readable_renames_and_drops():
    table = read(note=["x", "y"], kind=["good", "bad"], other=[1, 2])
    assert table.to_list() == [{"text": "x", "label": 1}, {"text": "y", "label": 0}]


def test_columns_may_swap_names():
    table = read(Columns(text="label", label="text"), label=["x"], text=["good"])
    assert table.to_list() == [{"text": "x", "label": 1}]


def test_readable_sees_the_rows_of_a_selection():
    chosen = Dataset.from_dict({"note": ["x", "y", "z"], "kind": [0, 1, 1]}).select([2, 0])
    table = readable(chosen, TEXT, ("bad", "good"), "the train table")
    assert table.to_list() == [{"text": "z", "label": 1}, {"text": "x", "label": 0}]


def test_a_missing_column_lists_those_that_are_there():
    words = (
        r"label: column 'kind' is not in the train table; it has: note, kinds "
        r"\(did you mean 'kinds'\?\)"
    )
    refused(words, note=["x"], kinds=[1])


@pytest.mark.parametrize(
    ("columns", "data", "words"),
    [
        (
            TEXT,
            {"note": [1], "kind": [1]},
            r"text: .* does not hold text but whole numbers; name a column that does$",
        ),
        (TEXT, {"note": ["x"], "kind": [[1]]}, r"label: .* does not hold labels but lists of"),
        (Columns(messages="m"), {"m": ["x"]}, "does not hold lists of {role, content}"),
        (Columns(messages="m"), {"m": [[{"from": "x"}]]}, "does not hold lists of"),
        (
            Columns(image="i", label="kind"),
            {"i": [1], "kind": [1]},
            "does not hold images but whole",
        ),
    ],
)
def test_a_column_of_another_kind_is_refused(columns, data, words):
    refused(words, columns, **data)


@pytest.mark.parametrize(
    ("columns", "data", "kept"),
    [
        (TEXT, {"note": ["x", "", " \t\u00a0", None, "\u200b", "👍"], "kind": [0] * 6}, [0, 5]),
        (TEXT, {"note": ["x", "y"], "kind": [None, 1]}, [1]),
        (TEXT, {"note": [None], "kind": [1]}, []),
        (
            Columns(text="a", text_pair="b", label="kind"),
            {"a": ["x", "", ""], "b": ["", "y", ""], "kind": [0, 0, 0]},
            [0, 1],
        ),
        (Columns(prompt="a", completion="b"), {"a": ["x", "", "x"], "b": ["", "y", None]}, [1]),
        (
            Columns(messages="m"),
            {
                "m": [
                    [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
                    [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}],
                    [{"role": "user", "content": "x"}],
                    [],
                    None,
                ]
            },
            [0],
        ),
        (Columns(image="i", label="kind"), {"i": [b"x", b"", None], "kind": [0] * 3}, [0]),
        (Columns(image="i", label="kind"), {"i": ["a.png", "", None], "kind": [0] * 3}, [0]),
        (
            Columns(image="i", label="kind"),
            {"i": [{"bytes": b"x", "path": None}, {"bytes": None, "path": None}], "kind": [0, 0]},
            [0],
        ),
    ],
)
def test_empty_records_are_found(columns, data, kept):
    rows = filled_rows(read(columns, **data))
    assert rows.dtype == np.int64
    assert rows.tolist() == kept


def test_images_are_not_decoded():
    features = Features({"i": Image(), "kind": Value("int64")})
    table = Dataset.from_dict(
        {"i": [{"bytes": b"x", "path": None}], "kind": [0]}, features=features
    )
    cell = readable(table, Columns(image="i", label="kind"), ("a", "b"), "it")["image"][0]
    assert cell == {"bytes": b"x", "path": None}


@given(st.integers(0, 2500))
def test_slices_cover_a_table(records):
    table = Dataset.from_dict({"a": list(range(records))})
    parts = list(slices(table))
    assert [row for _, columns in parts for row in columns["a"]] == list(range(records))
    assert all(columns["a"][0] == first for first, columns in parts)
