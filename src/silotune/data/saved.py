"""Saved: folders that ``save_to_disk`` of ``datasets`` wrote, of one table or of several parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import datasets
from datasets import Dataset, DatasetDict

Parts: TypeAlias = Mapping[str, Callable[[], Dataset]]
"""Name of a part -> what reads it."""

_TABLE, _DICT = "state.json", "dataset_dict.json"


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote it."""
    return (folder / _TABLE).is_file() or (folder / _DICT).is_file()


def saved_parts(folder: Path, alone: str = "train") -> Parts:
    """Its tables by part.

    Args:
        folder: that it wrote.
        alone: the part that a table without a name is.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        loaded = datasets.load_from_disk(str(folder))
        parts = loaded if isinstance(loaded, DatasetDict) else {alone: loaded}
        for table in parts.values():
            table.data.validate(full=True)  # what is damaged would be read from anywhere in memory
    except Exception as error:  # datasets and Arrow raise many kinds, which may quote
        raise ValueError(
            f"clients: cannot read {folder}, which save_to_disk wrote: {type(error).__name__}"
        ) from None
    return {name: _handed(table) for name, table in parts.items()}


def _handed(table: Dataset) -> Callable[[], Dataset]:
    return lambda: table
