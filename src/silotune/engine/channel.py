"""The plain channel: how a client's contribution travels, and what the server accepts of it.

The server takes nothing on trust: a contribution of another round or run, with tensors missing,
of another shape or type, with numbers that are not finite, too large to be multiplied or that have
moved too far is refused, and none of it is pooled.
"""

import math

from silotune.core import (
    ClientTask,
    ClientUpdate,
    CorruptPayload,
    Factors,
    UploadType,
    largest_norm,
    pack,
    unbounded,
    unpack,
)

from .upload import Narrow, narrowed, widened


class RefusedUpdateError(ValueError):
    """A contribution that must not reach the state; the message says why."""


def seal(shared: Factors, task: ClientTask, start: Factors) -> bytes:
    """On the client: the shared tensors, bound to their run, round and client.

    Args:
        shared: as they are at the end of the round.
        task: of the round.
        start: the same tensors at its beginning, as the server knows them.
    """
    upload = task.plan.upload
    sent = narrowed(shared, start, upload, task.seed)
    return pack(sent.tensors, _header(task.run, task.round, task.client, upload, sent.scales))


def open_sealed(
    result: ClientUpdate, start: Factors, upload: UploadType, largest: float = math.inf
) -> Factors:
    """On the server: what a client sent, once it is checked.

    Args:
        result: as it arrived.
        start: the shared tensors as the client was given them.
        upload: type of the numbers that it was to send.
        largest: L2 norm of a change that is still believed.

    Raises:
        RefusedUpdateError: naming what is wrong.
    """
    try:
        tensors, header = unpack(result.sealed)
    except CorruptPayload as error:
        raise RefusedUpdateError(str(error)) from error
    scales = str(header.get("scales", ""))
    if header != _header(result.run, result.round, result.client, upload, scales):
        raise RefusedUpdateError(f"the contribution belongs to {header}")
    try:
        shared = widened(Narrow(tensors, scales), start, upload)
    except ValueError as error:
        raise RefusedUpdateError(str(error)) from error
    arrived = {key: (tuple(t.shape), t.dtype) for key, t in shared.items()}
    asked = {key: (tuple(t.shape), t.dtype) for key, t in start.items()}
    if arrived != asked:
        wrong = min(key for key, _ in arrived.items() ^ asked.items())
        raise RefusedUpdateError(f"tensors differ from what was asked for: {wrong}")
    wild = unbounded(shared)
    if wild is not None:
        raise RefusedUpdateError(
            f"{wild} holds numbers that are not finite, or its norm is above "
            f"{largest_norm(shared[wild].dtype):.3g}"
        )
    norm = _distance(shared, start)
    if not norm <= largest:
        raise RefusedUpdateError(
            f"it changes the shared tensors by {norm:.3g} (L2 norm), and largest_update "
            f"allows {largest:g}"
        )
    return shared


def _distance(shared: Factors, start: Factors) -> float:
    gaps = shared.zip(start, lambda x, y: (x.double() - y.double()).square().sum())
    return math.sqrt(sum(float(gap) for gap in gaps.values()))


def _header(
    run: str, round: int, client: str, upload: UploadType, scales: str
) -> dict[str, object]:
    address: dict[str, object] = {"run": run, "round": round, "client": client}
    if upload != "float32":
        address["upload"] = upload
    return {**address, "scales": scales} if upload == "int8" else address
