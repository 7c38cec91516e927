"""Contents: the records of somebody's own dataset, digested, to be known again in a book for life.

Only plain values, lists, mappings, arrays and tensors can be: what else an object holds is not
known here. Numbers count as they are: records that are drawn anew each time they are asked for, as
by random augmentation, are not known again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor


def contents(dataset: Any) -> Iterator[bytes]:
    """The content of each record, 32 bytes; equal records have the same.

    Raises:
        TypeError: naming the class of an object that cannot be digested.
    """
    for i in range(len(dataset)):
        yield hashlib.sha256(_told(dataset[i])).digest()


def _told(value: Any) -> bytes:
    """A value as bytes that tell it from all others."""
    match value:
        case None | bool() | int() | float() | np.generic():
            text = repr(value.item() if isinstance(value, np.generic) else value).encode()
        case str():
            text = value.encode(errors="surrogatepass")
        case bytes():
            text = value
        case Tensor():
            return _told(value.detach().cpu().numpy())
        case np.ndarray() if value.dtype.kind in "biufcSU":
            text = f"{value.dtype} {value.shape} ".encode() + np.ascontiguousarray(value).tobytes()
        case Mapping():
            text = b"".join(_told(k) + _told(value[k]) for k in sorted(value, key=repr))
        case list() | tuple():
            text = b"".join(map(_told, value))
        case _:
            raise TypeError(type(value).__name__)
    kind = type(value).__name__ if isinstance(value, str | bytes) else ""
    return f"{kind}{len(text)}:".encode() + text
