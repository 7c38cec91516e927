"""The record by which dear tests are left to CI names functions that are there."""

from functools import cache
from pathlib import Path

from costs import read

ROOT = Path(__file__).parents[2]


@cache
def text(path: str) -> str:
    return (ROOT / path).read_text() if (ROOT / path).is_file() else ""


def known(name: str) -> bool:
    path, *_, function = name.split("::")
    return f"def {function}(" in text(path)


def test_the_record_of_costs_names_tests_that_are_there():
    gone = [name for name in read() if not known(name)]
    assert not gone, "name them as they are named now in tests/costs.json, or: make test-costs"


def test_it_would_be_seen():
    (name, *_) = read()
    assert known(name)
    assert not known(name + "_no_more")
    assert not known("tests/gone.py::test_a")
