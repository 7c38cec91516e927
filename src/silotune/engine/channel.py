"""The plain channel: how a client's contribution travels, and what the server accepts of it.

The server takes nothing on trust: a contribution of another round or run, with tensors missing,
of another shape or with numbers that are not finite is refused, and none of it is pooled.
"""

from collections.abc import Mapping

from silotune.core import CorruptPayload, Factors, Key, Result, Statistics, Task, lift, pack, unpack


class RefusedUpdateError(ValueError):
    """A contribution that must not reach the state; the message says why."""


def seal(shared: Factors, task: Task) -> bytes:
    """On the client: the shared tensors, bound to their run, round and client."""
    return pack(shared, _address(task.run, task.round, task.client))


def open_sealed(result: Result, shapes: Mapping[Key, tuple[int, ...]], weight: float) -> Statistics:
    """On the server: check one contribution and lift it into the additive statistics.

    Args:
        result: as it arrived.
        shapes: what this round's plan shares.
        weight: the client's public weight.

    Raises:
        RefusedUpdateError: naming what is wrong.
    """
    try:
        shared, header = unpack(result.sealed)
    except CorruptPayload as error:
        raise RefusedUpdateError(str(error)) from error
    if header != _address(result.run, result.round, result.client):
        raise RefusedUpdateError(f"the contribution belongs to {header}")
    arrived = {key: tuple(t.shape) for key, t in shared.items()}
    if arrived != dict(shapes):
        wrong = sorted(arrived.items() ^ shapes.items())
        raise RefusedUpdateError(f"tensors differ from what was asked for: {wrong[0][0]}")
    for key, tensor in shared.items():
        if not tensor.isfinite().all():
            raise RefusedUpdateError(f"{key} holds numbers that are not finite")
    return lift(shared, weight)


def _address(run: str, round: int, client: str) -> dict[str, object]:
    return {"run": run, "round": round, "client": client}
