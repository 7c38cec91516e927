"""Codec: tensors and a small header to bytes and back. safetensors, never pickle.

A blob is the SHA-256 of its rest (32 bytes), then a safetensors file whose metadata holds the
header as JSON: a flipped bit anywhere is seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .factors import Factors, Key, Role


class CorruptPayload(ValueError):
    """Bytes that are not what one of us wrote."""


def pack(factors: Factors, header: Mapping[str, Any]) -> bytes:
    """Tensors with a JSON header, as one blob."""
    tensors = {json.dumps(key): _by_itself(t) for key, t in factors.items()}
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
        tensors = {_key(name): t for name, t in load(body).items()}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CorruptPayload(f"payload of {len(blob)} bytes cannot be read: {error}") from error
    if not isinstance(header, dict):
        raise CorruptPayload("the payload's header is not a JSON object")
    return Factors(tensors), header


def _by_itself(tensor: Tensor) -> Tensor:
    """A copy: safetensors refuses tensors that share memory, as a fold and its last part may."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _key(name: str) -> Key:
    site, role, part = json.loads(name)
    return Key(site, Role(role), part)
