"""Labels: an empty one is none in every format, and what may be no labels is asked."""

import json

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from silotune.data import Columns, load
from silotune.data.columns import readable
from silotune.data.labels import ids_of, is_unlabelled, labels_in

TEXT = Columns(text="note", label="kind")


def read(columns=TEXT, labels=("bad", "good"), **data):
    return readable(Dataset.from_dict(data), columns, labels, "the train table")


def refused(words, *args, **kwargs):
    with pytest.raises(ValueError, match=words):
        read(*args, **kwargs)


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
        (("false", "true"), [True, False], [1, 0]),
        (("bad", "good"), [" good", "bad\t", "", "  "], [1, 0, -1, -1]),
        (("0.5", "1.0", "1.5"), [1.0, 1.5, 0.5], [1, 2, 0]),
        (("0401", "250"), [401, 250], [0, 1]),
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
        (("bad", "good"), [0, 2], r"row 1 .* the label set is: bad, good, or as ids 0 to 1"),
        (("bad", "good"), [0, -1], r"row 1 .* the label -1, as data sets often mark records with"),
        (("bad", "good"), [0, -7], r"row 1 .* has a negative number, as .* by label_map"),
        (("bad", "good"), ["good", "BAD"], r"row 1 .* differs from one of the label set in case"),
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


def kinds(values) -> Dataset:
    return Dataset.from_dict({"kind": values})


HOLES = ["good", "", None, " bad ", "good", "bad"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "xlsx", "feather", "objects"])
def test_an_empty_label_is_none_in_every_format(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    frame = pd.DataFrame({"note": [f"note {i}" for i in range(len(HOLES))], "kind": HOLES})
    match suffix:
        case "csv":
            frame.to_csv(path, index=False)
        case "tsv":
            frame.to_csv(path, index=False, sep="\t")
        case "jsonl":
            rows = [{"note": f"note {i}", "kind": kind} for i, kind in enumerate(HOLES)]
            path.write_text("\n".join(map(json.dumps, rows)))
        case "parquet":
            frame.to_parquet(path)
        case "xlsx":
            frame.to_excel(path, index=False)
        case "feather":
            frame.to_feather(path)
    table = Dataset.from_dict({"kind": HOLES}) if suffix == "objects" else load(str(path)).train
    labels = labels_in([table], "kind", "it")
    assert labels == ("bad", "good")
    assert ids_of(table, "kind", labels, "it") == [1, -1, -1, 0, 1, 0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            [0.5, 0.25, 0.5, 0.25],
            "holds numbers with fractions; .* column of classes.* label_map",
        ),
        (["0.5", "n/a"] * 3, "holds numbers with fractions"),
        ([0, 1, -1] * 20, r"has the label -1, .* by label_map, such as \{'-1': null\}"),
        ([0, 1, -9] * 20, "has a negative number, as"),
        (["yes", "Yes", "no"] * 20, "labels that differ in case only; say in label_map"),
        ([str(i % 4) for i in range(39)], "4 different values in 39 records, so few of each"),
        (["a", "b"] * 20 + ["secret"], "a value that only one record has, .* or null for no label"),
    ],
)
def test_what_may_be_no_labels_is_asked(values, words):
    with pytest.raises(ValueError, match=f"^labels: column 'kind' of it .*{words}") as caught:
        labels_in([kinds(values)], "kind", "it")
    assert "secret" not in str(caught.value)


def test_every_question_has_an_answer():
    halves = kinds([0.5, 0.25, None])
    assert ids_of(halves, "kind", ("0.25", "0.5"), "it") == [1, 0, -1]
    hidden = kinds([0, 1, -1] * 20)
    assert labels_in([hidden], "kind", "it", {"-1": None}) == ("0", "1")
    assert ids_of(hidden, "kind", ("0", "1"), "it", {"-1": None})[:3] == [0, 1, -1]
    assert ids_of(hidden, "kind", ("no", "yes"), "it", {"-1": None})[:3] == [0, 1, -1]
    assert ids_of(hidden, "kind", ("-1", "0", "1"), "it")[:3] == [1, 2, 0]
    cased = kinds(["yes", "Yes", "no"] * 20)
    assert labels_in([cased], "kind", "it", {"Yes": "yes"}) == ("no", "yes")
    assert ids_of(cased, "kind", ("no", "yes"), "it", {"Yes": "yes"})[:3] == [1, 1, 0]
    assert ids_of(cased, "kind", ("no", "yes", "Yes"), "it")[:3] == [1, 2, 0]
    rare = kinds(["a", "b"] * 20 + ["c"])
    assert labels_in([rare], "kind", "it", {"c": "a"}) == ("a", "b")


def test_ids_that_mark_no_label_in_class_labels():
    feature = Features({"kind": ClassLabel(names=["no", "yes"])})
    table = Dataset.from_dict({"kind": [0, 1, -1]}, features=feature)
    with pytest.raises(ValueError, match=r"row 2 .* the label -1"):
        ids_of(table, "kind", ("no", "yes"), "it")
    assert ids_of(table, "kind", ("no", "yes"), "it", {"-1": None}) == [0, 1, -1]
    assert ids_of(table, "kind", ("off", "on"), "it", {"no": "off", "yes": "on", "-1": None}) == [
        0,
        1,
        -1,
    ]
