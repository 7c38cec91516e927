"""Own records: each client keeps, in its own folder, which records a run of it is of.

What is public of a table that lies in memory are its columns, which other records may have too. So
whether a run is continued with its own records, its owner alone can tell.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from silotune.core.files import read_json, write_json
from silotune.runs.folder import RunFolder

FILE = "records.json"
"""In a client's folder; never outside of it, as a digest lets guesses be checked."""


def keep(folder: RunFolder, digests: Mapping[str, str]) -> None:
    """Write what a run begins with.

    Args:
        folder: of the run.
        digests: of each client's records.

    Raises:
        RecordError: if it cannot be written.
    """
    for name, digest in digests.items():
        folder.site(name).mkdir(parents=True, exist_ok=True)
        write_json(folder.site(name) / FILE, {"sha256": digest})


def forget(folder: RunFolder) -> None:
    """Remove what ``keep`` wrote, and folders that hold nothing else."""
    for file in folder.path.glob(f"sites/*/{FILE}"):
        file.unlink()
        with contextlib.suppress(OSError):  # somebody else keeps something there
            file.parent.rmdir()
            file.parent.parent.rmdir()


def check(folder: RunFolder, digests: Mapping[str, str]) -> None:
    """See that a run has the records that it began with.

    Args:
        folder: of the run.
        digests: of each client's records, as they are now.

    Raises:
        ValueError: naming a client that has others, or cannot tell.
    """
    for name, digest in digests.items():
        file = folder.site(name) / FILE
        if not file.is_file():
            raise ValueError(
                f"resume: {file} is gone, so nobody can tell whether {name} has the records that "
                "this run began with; begin another run, in another folder"
            )
        if read_json(file).get("sha256") != digest:
            raise ValueError(
                f"resume: {name} has other records than this run began with; give it the same "
                "ones, in the same order, or another folder for another run"
            )
