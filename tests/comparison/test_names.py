"""Axes, labels and tried values: every table keeps them apart, or the grid is refused."""

import datetime
import re

import pyarrow.parquet as pq
import pytest

from comparison.grids import BASE, Runner, grid
from silotune import compare
from silotune.config import ConfigError

LOW, HIGH = {"privacy.target_epsilon": 1}, {"privacy.target_epsilon": 6}


def made(folder, **changes):
    return compare(grid(**{"baseline": {}, "seeds": 2, **changes}), folder, runner=Runner())


@pytest.mark.parametrize("axis", ["epsilon", "seed", "value", "mean", "accuracy", "tuned", "time"])
def test_an_axis_may_be_called_as_another_column_is_and_loses_nothing(tmp_path, axis):
    found = made(tmp_path / "grid", axes={axis: {"low": LOW, "high": HIGH}})
    table = pq.read_table(tmp_path / "grid" / "runs.parquet").to_pydict()
    assert ["low", "low", "high", "high"] in table.values()
    assert table["seed"] == [0, 1, 0, 1]
    heads = found.csv().splitlines()[0].split(",")
    assert len(set(heads)) == len(heads)
    lines = found.markdown().splitlines()
    assert [re.split(r" *[|] *", line)[1] for line in lines[2:4]] == ["low", "high"]


def test_tried_values_may_be_numbers_and_words(tmp_path):
    given = grid(
        axes={"method.r": [2, 4]},
        baseline={},
        set={"train.server_optimizer": "momentum"},
        tune={"train.learning_rate": [1, "auto"]},
    )
    compare(given, tmp_path / "grid", runner=Runner())
    table = pq.read_table(tmp_path / "grid" / "runs.parquet").to_pydict()
    assert set(table["tuned train.learning_rate"]) == {"1", "auto"}


def test_a_section_may_be_tried(tmp_path):
    tried = [{"name": "ffa-lora", "r": r} for r in (2, 4)]
    found = made(tmp_path / "grid", axes={"privacy.target_epsilon": [1, 6]}, tune={"method": tried})
    assert found.failed == []
    assert "method name ffa-lora r 2" in found.csv()


PROBE = {"a": LOW, "linear probe": HIGH}
POOLED = {"a": LOW, "a, pooled": HIGH}
THREE = {**BASE, "data": {**BASE["data"], "silos": {"num": 3}}}
REFUSED = {
    "a label twice": ({"axes": {"e": {6: HIGH, "6": LOW}}}, "axes.e: has a label twice"),
    "a baseline's label": (
        {"axes": {"e": PROBE}, "beside": ["linear-probe"]},
        "the baseline linear-probe has the labels of a cell (e linear probe)",
    ),
    "a pooled one's": (
        {"axes": {"e": POOLED}, "beside": ["pooled"], "base": THREE},
        "the baseline pooled has the labels of a cell (e a, pooled)",
    ),
    "too long": ({"axes": {"e": {"x" * 300: LOW, "b": HIGH}}}, "axes.e: xxx"),
    "a factor that is no number": (
        {"tune": {"train.learning_rate": {"times_usual": [True, 2]}}},
        "times_usual takes numbers above 0",
    ),
    "a factor without end": (
        {"tune": {"train.learning_rate": {"times_usual": [float("inf")]}}},
        "times_usual takes numbers above 0",
    ),
    "a factor in a list": (
        {"tune": {"train.learning_rate": [0.1, {"times_usual": [2]}]}},
        "tune.train.learning_rate: takes numbers and auto",
    ),
    "a date": (
        {"set": {"train.num_rounds": datetime.date(2026, 1, 1)}},
        "train.num_rounds",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_tables_and_folders_cannot_keep_apart_are_refused(tmp_path, name):
    changes, words = REFUSED[name]
    with pytest.raises(ConfigError, match=re.escape(words)):
        made(tmp_path / "grid", **changes)
    assert not (tmp_path / "grid").exists()
