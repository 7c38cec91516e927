"""Rules for every source file that no linter checks."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "silotune"
FILES = sorted(SOURCE.rglob("*.py"))
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|raise NotImplementedError)\b")
MOST_LINES = 400


@pytest.fixture(params=FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def text(request):
    return request.param.read_text(encoding="utf-8")


def test_tells_its_idea_at_its_head(text):
    assert ast.get_docstring(ast.parse(text)), "a file begins with a docstring"


def test_is_finished(text):
    assert UNFINISHED.findall(text) == []


def test_is_short_enough_to_read(text):
    assert len(text.splitlines()) <= MOST_LINES


def test_the_rules_see_the_files():
    assert len(FILES) > 10
