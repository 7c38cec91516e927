"""Rules for every source file that no linter checks; each test lists the files that break one."""

import ast
import re
from pathlib import Path

import pytest

from silotune.objectives import TASKS

SOURCE = Path(__file__).parents[2] / "src"
PACKAGES = ("silotune", "silotune_link")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|raise NotImplementedError)\b")
MOST_LINES = 400


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Every file, by its place."""
    files = sorted(file for package in PACKAGES for file in (SOURCE / package).rglob("*.py"))
    assert len(files) > 100, "the files are seen"
    return {str(f.relative_to(SOURCE)): f.read_text(encoding="utf-8") for f in files}


def test_every_file_tells_its_idea_at_its_head(texts):
    assert [file for file, text in texts.items() if not ast.get_docstring(ast.parse(text))] == []


def test_every_file_is_finished(texts):
    found = {file: UNFINISHED.findall(text) for file, text in texts.items()}
    assert {file: words for file, words in found.items() if words} == {}


def test_every_file_is_short_enough_to_read(texts):
    lines = {file: len(text.splitlines()) for file, text in texts.items()}
    assert {file: n for file, n in lines.items() if n > MOST_LINES} == {}


@pytest.mark.parametrize("text", ["x = 1  # TODO: y", "raise NotImplementedError"])
def test_what_is_unfinished_would_be_seen(text):
    assert UNFINISHED.search(text)


def test_no_file_knows_a_task_by_its_name_but_the_tasks_own(texts):
    """Facts are asked of ``silotune.objectives``; the words of ``--task`` are listed unloaded."""
    others = {
        file: names
        for file, text in texts.items()
        if not file.startswith("silotune/objectives/")
        if (names := named_tasks(text))
    }
    assert others.keys() == {"silotune/cli/choices.py"}
    assert others["silotune/cli/choices.py"] == set(TASKS)


def named_tasks(text: str) -> set[str]:
    """The names that stand in a file as values."""
    nodes = ast.walk(ast.parse(text))
    return {node.value for node in nodes if isinstance(node, ast.Constant)} & set(TASKS)
