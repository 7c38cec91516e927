"""``eva``: an adapter that begins at what layers read of public texts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from silotune.config import build
from silotune.data.files import read_file
from silotune.federation.eva import explained_variance_start

from .config_source import chosen
from .console import busy, say, speaker


def write_start(
    name: str, overrides: Sequence[str], texts: Path, column: str, output: Path
) -> None:
    """Write the adapter of a configuration, and say how to begin with it.

    Raises:
        ValueError: in words.
    """
    console, config = speaker(), chosen(name, overrides)
    federation = build(config)
    if config.data.path and texts.resolve().is_relative_to(Path(config.data.path).resolve()):
        raise ValueError(f"--texts: {texts} is among the records (data.path); name public texts")
    with busy(console, "reading the public texts"):
        found = explained_variance_start(federation, _texts(texts, column), output)
    shares = sorted(found.explained.values())
    say(console, f"read {found.texts:,} texts of {texts}, {found.tokens:,} tokens; no record")
    say(
        console,
        f"the rows of A hold {median(shares):.0%} of what the inputs of a module vary (median of "
        f"{len(shares)} modules; {shares[0]:.0%} to {shares[-1]:.0%})",
    )
    begin_with = [f"method.init_from={output}"]
    if federation.terms.method.init_lora_weights != "kaiming":
        begin_with.append("method.init_lora_weights=kaiming")
    given = " ".join([*map(shlex.quote, overrides), *begin_with])
    say(console, f"wrote {output}; begin with it: silotune run {name} {given}")
    say(console, f"everybody who sees the adapter may know {texts}: keep records out of it")


def _texts(file: Path, column: str) -> list[str]:
    if not file.is_file():
        raise ValueError(f"texts: there is no file {file}; name one of public texts")
    table = read_file(file)
    if column not in table.column_names:
        there = ", ".join(table.column_names)
        raise ValueError(f"--column: {file} has no column {column}; it has {there}")
    found = [value for value in table[column] if isinstance(value, str) and value.strip()]
    if not found:
        raise ValueError(f"--column: {column} of {file} holds no text")
    return found
