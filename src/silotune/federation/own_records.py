"""Own records: each client keeps, in its own folder, which records a run of it is of.

Beside that stands, for itself, what was left out of them or cut: one record may decide it.

What is public of a table that lies in memory are its columns, which other records may have too. So
whether a run is continued with its own records, its owner alone can tell. Of the tables beside the
clients whoever keeps the checkpoint knows it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from silotune.core.files import DamagedError, read_json, write_json
from silotune.engine.checkpoint import CURE
from silotune.runs.folder import RunFolder

from .inputs import TEST, VALID

FILE = "records.json"
"""In a client's folder; never outside of it, as a digest lets guesses be checked."""

_BESIDE = {VALID: "valid.json", TEST: "test.json"}
"""In the checkpoint's folder, which nobody publishes."""


def keep(
    folder: RunFolder, digests: Mapping[str, str], notices: Mapping[str, Sequence[str]]
) -> None:
    """Write what a run begins with.

    Args:
        folder: of the run.
        digests: of each client's records, and of the tables beside them.
        notices: by client, what reading did to its records.

    Raises:
        RecordError: if it cannot be written.
    """
    for name, digest in digests.items():
        file = _file(folder, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"sha256": digest, "notices": list(notices.get(name, ()))})


def forget(folder: RunFolder) -> None:
    """Remove what ``keep`` wrote, and folders that hold nothing else."""
    for name in _BESIDE:
        _file(folder, name).unlink(missing_ok=True)
    for file in folder.path.glob(f"sites/*/{FILE}"):
        file.unlink()
        with contextlib.suppress(OSError):  # somebody else keeps something there
            file.parent.rmdir()
            file.parent.parent.rmdir()


def changed(folder: RunFolder, digests: Mapping[str, str]) -> list[str]:
    """Whose records are not those that a run began with; who cannot tell is left out.

    Args:
        folder: of the run.
        digests: as they are now.

    Raises:
        DamagedError: naming a file that does not say so.
    """
    files = {name: _file(folder, name) for name in digests}
    known = {name: _digest_in(file) for name, file in files.items() if file.is_file()}
    return [name for name, digest in known.items() if digest != digests[name]]


def check(folder: RunFolder, digests: Mapping[str, str]) -> None:
    """See that a run has the records that it began with.

    Args:
        folder: of the run.
        digests: of each client's records, and of the tables beside them, as they are now.

    Raises:
        ValueError: naming a client that has others, or cannot tell.
    """
    for name in digests:
        file = _file(folder, name)
        if not file.is_file():
            raise ValueError(
                f"resume: {file} is gone, so nobody can tell whether {name} has the records that "
                "this run began with; begin another run, in another folder"
            )
    for name in changed(folder, digests):
        raise ValueError(
            f"resume: {name} has other records than this run began with; give it the same "
            "ones, in the same order, or another folder for another run"
        )


def _digest_in(file: Path) -> str:
    try:
        match read_json(file):
            case {"sha256": str(digest)}:
                return digest
        raise DamagedError(f"{file}: damaged, this is no digest of records")
    except DamagedError as error:
        raise DamagedError(f"{error}; {CURE}") from error


def _file(folder: RunFolder, name: str) -> Path:
    if name in _BESIDE:
        return folder.checkpoint / _BESIDE[name]
    return folder.site(name) / FILE
