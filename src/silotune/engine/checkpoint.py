"""Checkpoints: the last whole round in one file, replaced atomically.

The server's memory lies among the tensors, under the empty site, which no model has; folds lie
there under names of their own.
"""

from __future__ import annotations

from pathlib import Path

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

_MEMORY, _FOLDED, _LATEST = "", "folded ", "latest "


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
    write_bytes(path, encode(state, run, config))


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
        return decode(path.read_bytes())
    except CorruptPayload as error:
        raise CheckpointError(f"{path}: {error}") from error


def encode(state: GlobalState, run: str, config: str) -> bytes:
    """A state as one blob."""
    header = {
        "round": state.round,
        "run": run,
        "config": config,
        "drawn": [[key, seed] for key, seed in sorted(state.drawn.items())],
        "changed": sorted(state.latest.keys),
        "holders": sorted(state.latest.holders),
    }
    return pack(everything(state), header)


def decode(blob: bytes) -> tuple[GlobalState, str, str]:
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
    return state, header["run"], header["config"]


def everything(state: GlobalState) -> Factors:
    """All numbers of a state, the server's memory among them."""
    memory = {Key(_MEMORY, Role.HEAD, name): tensor for name, tensor in state.memory.items()}
    folds = tensors_of(state.folded, _FOLDED).updated(tensors_of(state.latest.folded, _LATEST))
    return state.factors.updated(folds).updated(memory)
