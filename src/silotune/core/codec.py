"""Codec: tensors and a small header to bytes and back. safetensors, never pickle.

A blob is the SHA-256 of its rest (32 bytes), then a safetensors file whose metadata holds the
header as JSON: a flipped bit anywhere is seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .factors import Factors, Key


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
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
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
