"""The page of models: every default has its row, and the benchmark that makes it runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from silotune.models.target_modules import DEFAULT_TARGETS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "models.md"


def rows(text: str) -> dict[str, list[str]]:
    """By type, the other cells of the table."""
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    return {first: others for first, *others in cells if first != "type"}


def test_every_default_has_a_row_with_its_targets():
    found = rows(PAGE.read_text(encoding="utf-8"))
    missing = DEFAULT_TARGETS.keys() - found.keys()
    assert not missing
    for name, targets in DEFAULT_TARGETS.items():
        said = found[name][1].replace(r"\|", "|")
        named = [targets] if isinstance(targets, str) else targets
        assert all(f"`{target}`" in said for target in named), name


def test_every_row_says_works_or_why_not():
    for name, (_, _, plain, private) in rows(PAGE.read_text(encoding="utf-8")).items():
        for outcome in (plain, private):
            assert outcome.startswith("works") or len(outcome.removeprefix("no: ")) > 10, name


@pytest.mark.full
def test_the_benchmark_runs_and_what_worked_works():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.architectures", "--quick"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=280
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["tried"] == 13, "experts and entities have rows of their own"
    assert (figures["plain"], figures["private"]) == (13, 12)
    assert figures["largest_gap"] < 1e-4
