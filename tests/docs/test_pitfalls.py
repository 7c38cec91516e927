"""``docs/privacy-pitfalls.md`` names code and tests that exist, and leaves out no pitfall."""

import ast
import re
from pathlib import Path

import pytest

from silotune.config.schema import LEAVES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "privacy-pitfalls.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| pitfall")
]

KNOWN = (
    "denominator",
    "unclipped",
    "shuffled",
    "secure mode",
    "fixed batch",
    "empty batch",
    "NaN",
    "seed also decides",
    "after a resume",
    "unequal weights",
    "summed over clients",
    "averages before clipping",
    "every layer",
    "outside the norm",
    "cohort is published",
    "metrics as a side channel",
    "early stopping",
)
"""What the page must speak of."""


def names(path: Path) -> set[str]:
    """Functions and classes of a file; methods as ``Class.method``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_every_row_is_whole_and_true(row):
    _, severity, code, tests = row
    assert severity in {"critical", "high", "medium"}
    places = re.findall(r"`([\w/]+\.py): ([\w.]+)`", code)
    shown = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
    assert places
    assert shown
    assert len(places) == code.count("`") / 2, "every name is understood"
    assert len(shown) == tests.count("`") / 2, "every name is understood"
    for file, name in places:
        assert name in names(ROOT / "src" / "silotune" / file), f"{file}: {name}"
    for file, name in shown:
        assert name in names(ROOT / file), f"{file}::{name}"
        assert name.startswith("test_")


@pytest.mark.parametrize("words", KNOWN)
def test_no_known_pitfall_is_left_out(words):
    assert any(words in row[0] for row in ROWS)


def test_the_rows_are_seen():
    assert len(ROWS) > 40


def test_no_key_chooses_a_round_by_its_score():
    chooses = re.compile("early|stop|best|patience|metric_for|select")
    assert [key for key in LEAVES if chooses.search(key)] == []
