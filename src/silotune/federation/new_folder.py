"""New folder: it is there whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from silotune.core.files import in_words


@contextlib.contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A draft that becomes ``output`` when it is whole, and is removed when it is not."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output: {output} exists already; choose another folder")
    draft = output.with_name(f".{output.name}.{os.getpid()}.tmp")  # nobody else's
    with in_words(output):
        draft.mkdir(parents=True)
        try:
            yield draft
            draft.replace(output)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
