"""Which run over sites is meant, where its folder is not named."""

from __future__ import annotations

from pathlib import Path

from silotune.core.locks import is_locked
from silotune.runs.folder import RunFolder


def run_of(path: Path | None) -> RunFolder:
    """The folder that was named; else the only such run here, or the only one that goes on.

    Raises:
        ValueError: if there are none, or several.
    """
    if path is not None:
        return RunFolder(path)
    found = [RunFolder(f.parent) for p in ("", "*/", "*/*/") for f in Path().glob(f"{p}live.json")]
    going = [run for run in found if is_locked(run.lock)]
    if len(going) == 1 or len(found) == 1:
        return (going or found)[0]
    names = ", ".join(sorted(str(run.path) for run in found)) or "none"
    raise ValueError(f"name the folder of the run; found here: {names}")
