"""Messages as bytes: tensors with a small header, and tasks and results made of these.

safetensors, never pickle. A blob is the SHA-256 of its rest (32 bytes), then a safetensors file
whose metadata holds the header as JSON: a flipped bit anywhere is seen. Whoever carries messages
need not understand them; a receiver that holds the task of the round before is sent only what
has changed since, with the digest of what that change begins from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .factors import Factors, Key
from .folding import accumulated, folded_of, tensors_of
from .messages import ClientId, ClientTask, ClientUpdate, Seeded
from .metrics import Meter
from .names import is_client_name, is_run_name
from .round_plan import plan_of


class CorruptPayload(ValueError):
    """Bytes that are not what one of us wrote."""


def pack(factors: Factors, header: Mapping[str, Any]) -> bytes:
    """Tensors with a JSON header, as one blob."""
    tensors = dict(_apart(factors))
    body = save(tensors, metadata={"header": json.dumps(header, sort_keys=True)})
    return hashlib.sha256(body).digest() + body


def unpack(blob: bytes) -> tuple[Factors, dict[str, Any]]:
    """The inverse of ``pack``.

    Raises:
        CorruptPayload: if the bytes are torn or foreign.
    """
    digest, body = blob[:32], blob[32:]
    if hashlib.sha256(body).digest() != digest:
        raise CorruptPayload(f"payload of {len(blob)} bytes is torn: its SHA-256 does not match")
    try:
        size = int.from_bytes(body[:8], "little")
        header = json.loads(json.loads(body[8 : 8 + size])["__metadata__"]["header"])
        tensors = {Key.of(json.loads(name)): t for name, t in load(body).items()}
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptPayload(f"payload of {len(blob)} bytes cannot be read: {error}") from error
    if not isinstance(header, dict):
        raise CorruptPayload("the payload's header is not a JSON object")
    return Factors(tensors), header


def _apart(factors: Factors) -> Iterator[tuple[str, Tensor]]:
    """Tensors by name; safetensors refuses those that share memory, so the later one is copied."""
    seen: set[int] = set()
    for key, tensor in factors.items():
        own = tensor.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        yield json.dumps(key), own.clone() if place in seen else own
        seen.add(place)


Find = Callable[[str], ClientTask | None]
"""An earlier task, by the digest of its state."""


class StateNotHeld(CorruptPayload):
    """A task leans on the state of an earlier one, which is not here; it must be sent whole."""


def state_digest(task: ClientTask) -> str:
    """SHA-256 of the tensors that a task brings: equal for all tasks of a round and rank."""
    return task.factors.updated(tensors_of(task.folded)).digest()


def encode_task(task: ClientTask, *, leaning_on: str = "") -> bytes:
    """A task as one blob.

    Args:
        task: what is asked.
        leaning_on: ``state_digest`` of the task of the round before, of the same rank, if the
            receiver has it; then only what has changed since is sent. Empty = all is sent.
    """
    kept = sorted(task.factors.keys() - task.change.keys) if leaning_on else []
    fold = tensors_of(task.change.folded if leaning_on else task.folded)
    if leaning_on and not kept and _size(fold) >= _size(tensors_of(task.folded)):
        return encode_task(task)  # everything is new
    header = {
        "run": task.run,
        "round": task.round,
        "client": task.client,
        "rank": task.rank,
        "plan": task.plan.outline(),
        "steps": task.steps,
        "learning_rates": task.learning_rates,
        "seed": task.seed,
        "remembers_since": task.remembers_since,
        "seeded": [{"seed": s.seed, "keys": s.keys, "digest": s.digest} for s in task.seeded],
        "leaning_on": leaning_on,
        "kept": kept,
    }
    return pack(task.factors.without(kept).updated(fold), header)


def decode_task(blob: bytes, find: Find | None = None) -> ClientTask:
    """The inverse of ``encode_task``, but for ``change``, which the receiver has no use for.

    Args:
        blob: as it arrived.
        find: the task that was received before with a state of this digest; None if there is none.

    Raises:
        StateNotHeld: if it leans on a task that is not there.
        CorruptPayload: if the bytes are torn or foreign.
    """
    tensors, header = unpack(blob)
    try:
        held = _held(header, find)
        fold = folded_of(tensors)
        sent = tensors.without(tensors_of(fold).keys())
        return ClientTask(
            **_address(header),
            factors=sent.updated(_kept(header["kept"], held)),
            folded=accumulated(held.folded, fold) if held else fold,
            rank=_typed(header, "rank", int, NoneType),
            seeded=tuple(_seeded(s) for s in header["seeded"]),
            plan=plan_of(header["plan"]),
            steps=_typed(header, "steps", int),
            learning_rates=tuple(map(_rate, _typed(header, "learning_rates", list))),
            seed=_typed(header, "seed", int),
            remembers_since=_typed(header, "remembers_since", int, NoneType),
        )
    except StateNotHeld:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CorruptPayload(f"this is not a task: {error}") from error


def encode_result(result: ClientUpdate) -> bytes:
    """SHA-256 of the rest, length of the header (4 bytes), header as JSON, sealed bytes."""
    header = {
        "run": result.run,
        "round": result.round,
        "client": result.client,
        "meters": {name: [m.total, m.count] for name, m in result.meters.items()},
        "refusal": result.refusal,
        "resent": result.resent,
    }
    text = json.dumps(header).encode()
    body = len(text).to_bytes(4, "big") + text + result.sealed
    return hashlib.sha256(body).digest() + body


def decode_result(blob: bytes) -> ClientUpdate:
    """The inverse of ``encode_result``.

    Raises:
        CorruptPayload: if the bytes are torn or foreign.
    """
    digest, body = blob[:32], blob[32:]
    if hashlib.sha256(body).digest() != digest:
        raise CorruptPayload(f"result of {len(blob)} bytes is torn: its SHA-256 does not match")
    end = 4 + int.from_bytes(body[:4], "big")
    try:
        header = json.loads(body[4:end])
        return ClientUpdate(
            **_address(header),
            sealed=body[end:],
            meters={name: _meter(*pair) for name, pair in header["meters"].items()},
            refusal=_typed(header, "refusal", str),
            resent=_typed(header, "resent", bool),
        )
    except (
        ArithmeticError,
        LookupError,
        RecursionError,
        AttributeError,
        TypeError,
        ValueError,
    ) as error:
        raise CorruptPayload(f"this is not a result: {error}") from error


def _address(header: Mapping[str, Any]) -> dict[str, Any]:
    """Run, round and client; whoever sent them may have chosen names that are paths."""
    if not is_run_name(header["run"]):
        raise ValueError("run is no name of a run")
    if not is_client_name(header["client"]):
        raise ValueError("client is no name of a client")
    return {
        "run": header["run"],
        "round": _typed(header, "round", int),
        "client": ClientId(header["client"]),
    }


def _rate(number: Any) -> float | int:
    """A learning rate, whatever it is."""
    if type(number) not in (int, float):
        raise ValueError("a learning rate is no number")
    rate: float | int = number
    return rate


def _meter(total: Any, count: Any) -> Meter:
    """A meter of two finite numbers."""
    for number in (total, count):
        if type(number) not in (int, float) or not math.isfinite(number):
            raise ValueError("a meter is of something else than finite numbers")
    return Meter(total, count)


def _size(tensors: Factors) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _typed(header: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """A field of exactly one of these types: JSON's true is no number."""
    if type(header[name]) not in kinds:
        raise TypeError(f"{name} is of the wrong type")
    return header[name]


def _held(header: Mapping[str, Any], find: Find | None) -> ClientTask | None:
    """The task that this one leans on, if it does."""
    digest = _typed(header, "leaning_on", str)
    if not digest:
        return None
    held = find(digest) if find else None
    if held is None:
        raise StateNotHeld("this task leans on the state of an earlier one, which is not here")
    return held


def _kept(keys: Sequence[tuple[str, str, str]], held: ClientTask | None) -> Factors:
    return Factors({key: held.factors[key] for key in map(Key.of, keys)} if held else {})


def _seeded(header: Mapping[str, Any]) -> Seeded:
    return Seeded(
        seed=_typed(header, "seed", int),
        keys=tuple(map(Key.of, header["keys"])),
        digest=_typed(header, "digest", str),
    )
