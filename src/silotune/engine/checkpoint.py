"""Checkpoints: the last whole round in one file, replaced atomically."""

from __future__ import annotations

from pathlib import Path

from silotune.core import CorruptPayload, GlobalState, pack, unpack, write_bytes


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why."""


def save(path: Path, state: GlobalState, run: str, config: str) -> None:
    """Write ``state`` so that a crash leaves either the old checkpoint or the new one.

    Args:
        path: the file.
        state: after a whole round.
        run: identifies the run.
        config: digest of what decides the result.

    Raises:
        RecordError: if the disk is full or the place cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, pack(state.factors, {"round": state.round, "run": run, "config": config}))


def load(path: Path) -> tuple[GlobalState, str, str]:
    """State, run and configuration digest.

    Raises:
        CheckpointError: if there is none or it is torn.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: there is no checkpoint to resume from; run without --resume"
        )
    try:
        factors, header = unpack(path.read_bytes())
    except CorruptPayload as error:
        raise CheckpointError(f"{path}: {error}") from error
    return GlobalState(round=header["round"], factors=factors), header["run"], header["config"]
