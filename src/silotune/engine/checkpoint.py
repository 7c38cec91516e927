"""Checkpoints: the last whole round in one file, replaced atomically.

The server's memory lies among the tensors, under the empty site, which no model has; folds lie
there under names of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from silotune.core import (
    Change,
    ClientId,
    CorruptPayload,
    Factors,
    GlobalState,
    Key,
    Role,
    folded_of,
    pack,
    tensors_of,
    unpack,
    write_bytes,
)
from silotune.core.files import in_words

_MEMORY, _FOLDED, _LATEST = "", "folded ", "latest "


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why."""


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        state: after a whole round.
        run: identifies the run.
        config: digest of what decides the result.
        kept: texts that were kept beside them, by name.
    """

    state: GlobalState
    run: str
    config: str
    kept: Mapping[str, str]


NOTHING: Mapping[str, str] = {}

CURE = "bring it back from a copy, or begin a new run in another folder (--output-dir)"


def save(
    path: Path, state: GlobalState, run: str, config: str, kept: Mapping[str, str] = NOTHING
) -> None:
    """Write ``state`` so that a crash leaves either the old checkpoint or the new one.

    Args:
        path: the file.
        state: after a whole round.
        run: identifies the run.
        config: digest of what decides the result.
        kept: texts to keep beside them, by name.

    Raises:
        RecordError: if the disk is full or the place cannot be written.
    """
    with in_words(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, encode(state, run, config, kept))


def load(path: Path) -> Checkpoint:
    """What ``save`` wrote.

    Raises:
        CheckpointError: if there is none or it is torn.
        RecordError: if it cannot be read.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: the checkpoint is gone; {CURE}")
    try:
        with in_words(path):
            return decode(path.read_bytes())
    except CorruptPayload as error:
        raise CheckpointError(f"{path}: {error}; {CURE}") from error


def encode(state: GlobalState, run: str, config: str, kept: Mapping[str, str] = NOTHING) -> bytes:
    """A state as one blob."""
    header = {
        **({"kept": dict(kept)} if kept else {}),
        "round": state.round,
        "run": run,
        "config": config,
        "drawn": [[key, seed] for key, seed in sorted(state.drawn.items())],
        "changed": sorted(state.latest.keys),
        "holders": sorted(state.latest.holders),
    }
    return pack(everything(state), header)


def decode(blob: bytes) -> Checkpoint:
    """The inverse of ``encode``.

    Raises:
        CorruptPayload: if the bytes are torn or foreign.
    """
    whole, header = unpack(blob)
    memory = {key.name: tensor for key, tensor in whole.items() if key.site == _MEMORY}
    folded, latest = folded_of(whole, _FOLDED), folded_of(whole, _LATEST)
    others = {*tensors_of(folded, _FOLDED), *tensors_of(latest, _LATEST)}
    factors = {k: t for k, t in whole.items() if k.site != _MEMORY and k not in others}
    state = GlobalState(
        round=header["round"],
        factors=Factors(factors),
        folded=folded,
        drawn={Key.of(parts): seed for parts, seed in header["drawn"]},
        latest=Change(
            keys=frozenset(map(Key.of, header["changed"])),
            folded=latest,
            holders=frozenset(map(ClientId, header["holders"])),
        ),
        memory=memory,
    )
    return Checkpoint(state, header["run"], header["config"], header.get("kept", {}))


def everything(state: GlobalState) -> Factors:
    """All numbers of a state, the server's memory among them."""
    memory = {Key(_MEMORY, Role.HEAD, name): tensor for name, tensor in state.memory.items()}
    folds = tensors_of(state.folded, _FOLDED).updated(tensors_of(state.latest.folded, _LATEST))
    return state.factors.updated(folds).updated(memory)
