import json
from dataclasses import asdict

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from silotune.data import summarize


def test_a_summary_counts():
    table = Dataset.from_dict(
        {"text": ["a", "b", "a", "a"], "text_pair": ["x", "x", "x", "y"], "label": [0, 2, 1, 0]}
    )
    summary = asdict(summarize(table, [3, 9, 3, 4], ["no", "yes", "maybe", "never"], empty=5))
    assert summary == {
        "records": 4,
        "labels": {"no": 2, "yes": 1, "maybe": 1, "never": 0},
        "lengths": {"p50": 3, "p95": 9, "max": 9},
        "duplicates": 1,  # the same content, though labelled otherwise
        "empty": 5,
        "truncated": 0,
    }
    assert json.loads(json.dumps(summary)) == summary


def test_a_language_model_has_no_labels():
    summary = summarize(Dataset.from_dict({"text": ["a", "a", "a"]}), [1, 1, 1], [])
    assert (summary.labels, summary.duplicates, summary.empty) == ({}, 2, 0)


@pytest.mark.parametrize("cells", [[b"x", b"y", b"x"], [[{"role": "u"}], None, [{"role": "u"}]]])
def test_duplicates_of_every_kind_of_cell(cells):
    assert summarize(Dataset.from_dict({"a": cells}), [1, 1, 1], []).duplicates == 1


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=200))
def test_quantiles_are_lengths_that_occur(lengths):
    table = Dataset.from_dict({"text": [str(i) for i in range(len(lengths))]})
    found = summarize(table, lengths, []).lengths
    assert {found.p50, found.p95, found.max} <= set(lengths)
    assert sum(n <= found.p50 for n in lengths) >= len(lengths) / 2
    assert sum(n <= found.p95 for n in lengths) >= 0.95 * len(lengths)
    assert found.max == max(lengths)
