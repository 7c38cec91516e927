"""Wire: tasks and results as bytes. Whoever carries them need not understand them.

A receiver that holds the task of the round before is sent only what has changed since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .codec import CorruptPayload, pack, unpack
from .factors import Factors, Key
from .folding import accumulated, folded_of, tensors_of
from .messages import ClientId, Result, Seeded, Task
from .meters import Meter
from .plan import plan_of

Find = Callable[[str, int, int | None], Task | None]
"""Run, round and rank: the task of an earlier message."""


def encode_task(task: Task, *, held: bool = False) -> bytes:
    """A task as one blob.

    Args:
        task: what is asked.
        held: the receiver has this client's task of the round before, or one of the same rank.
    """
    kept = sorted(task.factors.keys() - task.change.keys) if held else []
    header = {
        "run": task.run,
        "round": task.round,
        "client": task.client,
        "rank": task.rank,
        "plan": task.plan.outline(),
        "steps": task.steps,
        "learning_rate": task.learning_rate,
        "seed": task.seed,
        "seeded": [{"seed": s.seed, "keys": s.keys, "digest": s.digest} for s in task.seeded],
        "held": held,
        "kept": kept,
    }
    fold = tensors_of(task.change.folded if held else task.folded)
    return pack(task.factors.without(kept).updated(fold), header)


def decode_task(blob: bytes, find: Find | None = None) -> Task:
    """The inverse of ``encode_task``, but for ``change``, which the receiver has no use for.

    Args:
        blob: as it arrived.
        find: the task that was received before for this run, round and rank; None if there is none.

    Raises:
        CorruptPayload: if the bytes are torn or foreign, or lean on a task that is not there.
    """
    tensors, header = unpack(blob)
    try:
        held = _held(header, find)
        fold = folded_of(tensors)
        sent = tensors.without(tensors_of(fold).keys())
        return Task(
            run=header["run"],
            round=header["round"],
            client=ClientId(header["client"]),
            factors=sent.updated(_kept(header["kept"], held)),
            folded=accumulated(held.folded, fold) if held else fold,
            rank=header["rank"],
            seeded=tuple(_seeded(s) for s in header["seeded"]),
            plan=plan_of(header["plan"]),
            steps=header["steps"],
            learning_rate=header["learning_rate"],
            seed=header["seed"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptPayload(f"this is not a task: {error}") from error


def encode_result(result: Result) -> bytes:
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


def decode_result(blob: bytes) -> Result:
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
        return Result(
            run=header["run"],
            round=header["round"],
            client=ClientId(header["client"]),
            sealed=body[end:],
            meters={name: Meter(*pair) for name, pair in header["meters"].items()},
            refusal=header["refusal"],
            resent=header["resent"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptPayload(f"this is not a result: {error}") from error


def _held(header: Mapping[str, Any], find: Find | None) -> Task | None:
    """The task of the round before, if this one leans on it."""
    if not header["held"]:
        return None
    held = find(header["run"], header["round"] - 1, header["rank"]) if find else None
    if held is None:
        raise CorruptPayload("this task leans on that of the round before, which is not here")
    return held


def _kept(keys: Sequence[tuple[str, str, str]], held: Task | None) -> Factors:
    return Factors({key: held.factors[key] for key in map(Key.of, keys)} if held else {})


def _seeded(header: Mapping[str, Any]) -> Seeded:
    keys = tuple(map(Key.of, header["keys"]))
    return Seeded(seed=header["seed"], keys=keys, digest=header["digest"])
