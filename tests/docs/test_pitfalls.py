"""``docs/privacy-pitfalls.md`` names code and tests that exist, and leaves out no pitfall."""

import ast
import re
from functools import cache
from pathlib import Path

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


@cache
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


def faults(row: list[str]) -> list[str]:
    """What is not whole or not true of a row."""
    pitfall, severity, code, tests = row
    found = []
    if severity not in {"critical", "high", "medium"}:
        found.append(f"{pitfall}: severity {severity}")
    places = re.findall(r"`([\w/]+\.py): ([\w.]+)`", code)
    shown = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
    for cell, understood in ((code, places), (tests, shown)):
        if not understood or len(understood) != cell.count("`") / 2:
            found.append(f"{pitfall}: not every name is understood of {cell}")
    places = [(ROOT / "src" / "silotune" / file, name) for file, name in places]
    for file, name in [*places, *((ROOT / file, name) for file, name in shown)]:
        if not file.is_file() or name not in names(file):
            found.append(f"{pitfall}: {file.relative_to(ROOT)} has no {name}")
    return found


def test_every_row_is_whole_and_true():
    assert len(ROWS) > 40, "the rows are seen"
    assert [fault for row in ROWS for fault in faults(row)] == []


def test_a_row_that_is_not_true_would_be_seen():
    code, tests = "`core/sites.py: Nothing`", "`tests/conftest.py::_seeded`"
    assert len(faults(["x", "grave", code, tests])) == 3
    assert len(faults(["x", "high", "", "`tests/docs/test_pitfalls.py::test_none`"])) == 2


def test_no_known_pitfall_is_left_out():
    assert [words for words in KNOWN if not any(words in row[0] for row in ROWS)] == []


def test_no_key_chooses_a_round_by_its_score():
    chooses = re.compile("early|stop|best|patience|metric_for|select")
    assert [key for key in LEAVES if chooses.search(key)] == []
