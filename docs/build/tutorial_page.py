"""The tutorial as a page: ``docs/tutorial.py`` in cells, each code cell with what it shows."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

SCRIPT = Path(__file__).parents[1] / "tutorial.py"


@dataclass(frozen=True)
class Cell:
    """A piece of a script in percent format.

    Attributes:
        text: Python, or Markdown without its comment signs.
        is_code: which of the two.
    """

    text: str
    is_code: bool


def cells(script: str) -> list[Cell]:
    """The pieces of a script, in order."""
    parts = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)[1:]
    return [_cell(kind.strip(), text) for kind, text in zip(parts[::2], parts[1::2], strict=True)]


def _cell(kind: str, text: str) -> Cell:
    if kind != "[markdown]":
        return Cell(text.strip(), is_code=True)
    return Cell(re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE), is_code=False)


def outputs(script: str, scope: dict[str, Any]) -> Iterator[tuple[Cell, str]]:
    """Run the cells one after the other, each with what it shows, as Markdown.

    Args:
        script: in percent format. Its files are written into the current folder.
        scope: holds its names afterwards.
    """
    for cell in cells(script):
        yield cell, _run(cell.text, scope) if cell.is_code else ""


def page(script: str) -> str:
    """The whole page, made in a folder of its own that is gone afterwards."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            parts = [_markdown(cell, shown) for cell, shown in outputs(script, {})]
        finally:
            os.chdir(here)
    return "\n\n".join(parts) + "\n"


def _markdown(cell: Cell, shown: str) -> str:
    if not cell.is_code:
        return cell.text
    return "\n\n".join(filter(None, [f"```python\n{cell.text}\n```", shown]))


def _run(code: str, scope: dict[str, Any]) -> str:
    """As a notebook does: run it all, and show what was printed and the last expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "tutorial.py", "exec"), scope)
        value = None if last is None else eval(_compiled(last), scope)
    shown = [_block(printed.getvalue())] if printed.getvalue() else []
    return "\n\n".join([*shown, *([] if value is None else [_shown(value)])])


def _compiled(last: ast.Expr) -> CodeType:
    return compile(ast.Expression(last.value), "tutorial.py", "eval")


def _shown(value: object) -> str:
    if not hasattr(value, "savefig"):
        return _block(repr(value))
    drawn = io.StringIO()
    value.savefig(drawn, format="svg", bbox_inches="tight", transparent=True)
    svg = drawn.getvalue()
    return f'<figure class="plot">{svg[svg.index("<svg") :].strip()}</figure>'


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"
