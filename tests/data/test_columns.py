import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from hypothesis import given
from hypothesis import strategies as st

from silotune.data.columns import (
    Columns,
    check_columns,
    filled_rows,
    is_unlabelled,
    labels_in,
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
        (TEXT, {"note": [1], "kind": [1]}, r"text: .* does not hold text but"),
        (TEXT, {"note": ["x"], "kind": [[1]]}, r"label: .* does not hold labels but"),
        (Columns(messages="m"), {"m": ["x"]}, "does not hold lists of {role, content}"),
        (Columns(messages="m"), {"m": [[{"from": "x"}]]}, "does not hold lists of"),
        (Columns(image="i", label="kind"), {"i": [1], "kind": [1]}, "does not hold images"),
    ],
)
def test_a_column_of_another_kind_is_refused(columns, data, words):
    refused(words, columns, **data)


@pytest.mark.parametrize(
    ("labels", "values", "ids"),
    [
        (("bad", "good"), ["good", "bad", None], [1, 0, -1]),
        (("bad", "good"), [1, 0], [1, 0]),
        (("bad", "good"), [1.0, None], [1, -1]),
        (("bad", "good"), [1.0, float("nan")], [1, -1]),
        (("1", "2"), [1, 2], [0, 1]),
        (("1", "2"), ["2", "1"], [1, 0]),
        (("-1", "1"), [1, -1], [1, 0]),
        (("False", "True"), [True, False], [1, 0]),
    ],
)
def test_labels_become_ids(labels, values, ids):
    assert read(labels=labels, note=["x"] * len(values), kind=values)["label"][:] == ids


@pytest.mark.parametrize(
    ("labels", "values", "words"),
    [
        (
            ("bad", "good"),
            [0, 1, 2],
            r"row 2 \(the first is 0\) of the train table has a label outside of the label set; ",
        ),
        (("bad", "good"), [0, -1], r"row 1 .* the label set is: bad, good, or as ids 0 to 1"),
        (("bad", "good"), ["good", "goood"], r"row 1 .* the label set is: bad, good$"),
        (("1", "2"), [0], "row 0 .* the label set is: 1, 2"),
        (("bad", "good"), [0.5], r"row 0 .* outside"),
        (("bad", "good"), [True], "row 0 .* outside"),
    ],
)
def test_an_unknown_label_is_named_with_its_row(labels, values, words):
    refused(words, labels=labels, note=["x"] * len(values), kind=values)


def with_names(names, ids):
    features = Features({"note": Value("string"), "kind": ClassLabel(names=names)})
    return Dataset.from_dict({"note": ["x"] * len(ids), "kind": ids}, features=features)


@pytest.mark.parametrize(
    ("labels", "ids"),
    [
        (("yes", "no"), [1, 0]),
        (("yes", "maybe", "no"), [2, 0]),
        (("0", "1"), [0, 1]),
        (("nay", "aye"), [0, 1]),
    ],
)
def test_class_labels_are_matched_by_name_where_the_names_are_known(labels, ids):
    table = readable(with_names(["no", "yes"], [0, 1]), TEXT, labels, "it")
    assert table["label"][:] == ids


def test_a_class_label_outside_the_set_is_named():
    with pytest.raises(ValueError, match=r"row 2 .* outside of the label set"):
        readable(with_names(["no", "yes", "maybe"], [0, 1, 2]), TEXT, ("yes", "no"), "it")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([10, 9, None, 10], ("9", "10")),
        (["b", "a", "b"], ("a", "b")),
        ([1.0, 0.0, None], ("0", "1")),
        ([True, False], ("False", "True")),
    ],
)
def test_the_label_set_of_the_data(values, labels):
    table = Dataset.from_dict({"note": ["x"] * len(values), "kind": values})
    assert labels_in([table], "kind", "it") == labels
    assert readable(table, TEXT, labels, "it")["label"][0] == labels.index(
        str(int(values[0])) if isinstance(values[0], float) else str(values[0])
    )


def test_the_label_set_of_class_labels_keeps_their_order():
    assert labels_in([with_names(["no", "yes", "maybe"], [0])], "kind", "it") == (
        "no",
        "yes",
        "maybe",
    )


def test_the_label_set_needs_labels():
    with pytest.raises(ValueError, match="holds no label"):
        labels_in([Dataset.from_dict({"kind": [None]})], "kind", "it")
    with pytest.raises(ValueError, match=r"column 'kin' is not in it; .*did you mean 'kind'"):
        labels_in([Dataset.from_dict({"kind": [0]})], "kin", "it")


@pytest.mark.parametrize(
    "values",
    [
        [f"secret {i}" for i in range(21)],
        [f"secret {i % 1001}" for i in range(3000)],
        ["secret" * 20, "other"],
        ["secret\nand more", "other"],
    ],
    ids=["another in each record", "too many", "long", "lines"],
)
def test_what_records_say_is_no_label_set(values):
    with pytest.raises(ValueError, match=r"^labels: column 'kind' of it .* give labels") as caught:
        labels_in([Dataset.from_dict({"kind": values})], "kind", "it")
    assert "secret" not in str(caught.value)
    names = [f"name {i}" for i in range(1001)]
    assert len(labels_in([with_names(names, [0])], "kind", "it")) == 1001  # declared


def test_a_few_records_may_each_have_another_label():
    table = Dataset.from_dict({"kind": [str(i) for i in range(20)]})
    assert len(labels_in([table], "kind", "it")) == 20


def test_hidden_labels():
    assert is_unlabelled(Dataset.from_dict({"kind": [-1, -1]}), "kind")
    assert not is_unlabelled(Dataset.from_dict({"kind": [-1, 0]}), "kind")
    assert not is_unlabelled(Dataset.from_dict({"note": [""]}), "kind")


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
