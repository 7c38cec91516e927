"""Sealed: tensors in a safetensors file whose metadata have SHA-256 of all the rest of it.

Everybody reads it as any other such file. A file by somebody else has no such digest, and is read
as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

_METADATA, _DIGEST = "__metadata__", "sha256"


def sealed(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors by name as the content of a file."""
    plain = save(dict(tensors))
    metadata = {"format": "pt", _DIGEST: _digest(plain)}
    # safetensors would write two of these in any order, and equal adapters are equal bytes
    header = json.dumps({_METADATA: metadata, **_header(plain)}, separators=(",", ":")).encode()
    padded = header.ljust(-(-len(header) // 8) * 8)
    return len(padded).to_bytes(8, "little") + padded + plain[_end_of_header(plain) :]


def unsealed(data: bytes) -> dict[str, Tensor]:
    """The inverse, in the order of the names.

    Raises:
        SafetensorError: if this is no such file.
        ValueError: if numbers are not those that were saved.
    """
    tensors = dict(sorted(load(data).items()))  # safetensors keeps no order
    stated = _header(data).get(_METADATA, {}).get(_DIGEST)
    if stated is not None and stated != _digest(data):
        raise ValueError("it is not what was saved (its SHA-256 is another)")
    return tensors


def _header(data: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(data[8 : _end_of_header(data)])
    return header


def _digest(data: bytes) -> str:
    entries = {name: entry for name, entry in _header(data).items() if name != _METADATA}
    whole = hashlib.sha256(json.dumps(entries, sort_keys=True).encode())
    whole.update(data[_end_of_header(data) :])
    return whole.hexdigest()


def _end_of_header(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")
