"""Wire: tasks and results as bytes. Whoever carries them need not understand them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .codec import CorruptPayload, pack, unpack
from .factors import Key, Role
from .messages import ClientId, Result, Seeded, Task
from .meters import Meter
from .plan import plan_of


def encode_task(task: Task) -> bytes:
    """A task as one blob."""
    phases, share = task.plan.outline()
    header = {
        "run": task.run,
        "round": task.round,
        "client": task.client,
        "phases": phases,
        "share": share,
        "steps": task.steps,
        "learning_rate": task.learning_rate,
        "seed": task.seed,
        "seeded": _seeded_header(task.seeded),
    }
    return pack(task.factors, header)


def decode_task(blob: bytes) -> Task:
    """The inverse of ``encode_task``.

    Raises:
        CorruptPayload: if the bytes are torn or foreign.
    """
    factors, header = unpack(blob)
    try:
        return Task(
            run=header["run"],
            round=header["round"],
            client=ClientId(header["client"]),
            factors=factors,
            seeded=_seeded(header["seeded"]),
            plan=plan_of(header["phases"], header["share"]),
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


def _seeded_header(seeded: Seeded | None) -> dict[str, Any] | None:
    if seeded is None:
        return None
    return {"seed": seeded.seed, "keys": seeded.keys, "digest": seeded.digest}


def _seeded(header: dict[str, Any] | None) -> Seeded | None:
    if header is None:
        return None
    keys = tuple(Key(site, Role(role), name) for site, role, name in header["keys"])
    return Seeded(seed=header["seed"], keys=keys, digest=header["digest"])
