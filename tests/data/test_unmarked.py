"""Tables without a mark of their content are those that ``datasets`` makes with one."""

import datasets.arrow_dataset
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from silotune.data.columns import Columns
from silotune.data.federated_dataset import prepare_silos
from silotune.data.given import filled_table_of
from silotune.data.loading import Source, Tables
from silotune.data.partition import Partition
from silotune.data.unmarked import of_plain_values, rows_of

PLAIN = (
    ["a", "é\u2028", ""],
    [None, "a", "b"],
    [1, -(2**63), 2**63 - 1],
    [None, 3, None],
    [0.5, float("inf"), -0.0],
    [True, False, None],
)
LOOKED_AT = (
    [None, None, None],
    [1, 2.5, 3],
    [b"a", b"b", b"c"],
    [{"role": "user"}, {"role": "user"}, {"role": "user"}],
    [["a"], [], ["b", "c"]],
    [np.int32(1), np.int32(2), np.int32(3)],
)


def records(*columns):
    return [
        {f"column {i}": cell for i, cell in enumerate(row)} for row in zip(*columns, strict=True)
    ]


def same(one, other):
    return one.features == other.features and repr(one.to_list()) == repr(other.to_list())


def test_plain_values_are_read_as_datasets_reads_them():
    given = records(*PLAIN)
    assert same(of_plain_values(given), Dataset.from_list(given))
    short = [given[1], {"column 0": "b", "nobody's": 1}, {}]  # the first record names the columns
    assert same(of_plain_values(short), Dataset.from_list(short))


@pytest.mark.parametrize("column", LOOKED_AT, ids=str)
def test_other_values_are_left_to_it(column):
    given = records(PLAIN[0], column)
    assert of_plain_values(given) is None
    assert same(filled_table_of(given, "records"), Dataset.from_list(given))


@pytest.mark.parametrize(
    "column", [[2**63, 1, 2], ["\ud800", "a", "b"], [1, "a", 2], [True, 2, 3]], ids=ascii
)
def test_what_no_table_holds_is_refused_in_words(column):
    with pytest.raises(ValueError, match=r"records: column 'column 1' holds values of several"):
        filled_table_of(records(PLAIN[0], column), "records")


def test_no_records_are_refused_in_words():
    for nothing in ([], [{}]):
        with pytest.raises(ValueError, match="records: has no records"):
            filled_table_of(nothing, "records")


def test_rows_are_those_that_datasets_selects():
    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["cat", "dog"])})
    whole = Dataset.from_dict({"text": list("abcdefg"), "label": [0, 1, 0, 1, 0, 1, 0]}, kinds)
    cut = whole.select([6, 1, 4, 0])
    for table in (whole, cut):
        n = len(table)
        for rows in ([0, 2], [2, 0, 2], [1, 2, 3], [], [n - 1], range(1, n), range(n - 1, -1, -1)):
            picked = rows_of(table, np.array(rows, dtype=np.int64))
            assert same(picked, table.select(rows))
        assert rows_of(table, np.arange(n)) is table


def test_nobody_takes_a_mark_of_what_silos_hold(monkeypatch):
    def taken(*_):
        raise AssertionError("a table was hashed")

    monkeypatch.setattr(datasets.arrow_dataset, "generate_fingerprint", taken)
    with pytest.raises(AssertionError, match="hashed"):
        Dataset.from_dict({"text": ["a"]})
    own = [{"text": f"record {i}" if i % 9 else "", "label": "ab"[i % 2]} for i in range(30)]
    silos = {name: Tables(train=filled_table_of(own, name)) for name in ("east", "west")}
    prepared = prepare_silos(
        Source(silos=silos),
        Columns(text="text", label="label"),
        Partition(),
        labels=("a", "b"),
        evaluation="simulation",
        valid_fraction=0.3,
        limit=20,
        seed=0,
    )
    assert {len(s.train) + len(s.valid) for s in prepared.silos.values()} == {20}
