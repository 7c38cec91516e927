"""Masks: which part of a batch tells where another part is padding.

A record may have more than one row of positions: what an encoder reads and what a decoder writes.
Each row has a mask (n, T), 1 where there is something, and the names of its parts begin like that
of its mask.
"""

from __future__ import annotations

from collections.abc import Collection

MASK = "attention_mask"
"""The mask of a record's first row, or only one; those of others end so."""

DECODER = "decoder_"
"""How the names begin of what a decoder reads; labels lie beside it."""


def masks_of(parts: Collection[str]) -> list[str]:
    """The masks among the parts of a batch."""
    return [part for part in parts if part.endswith(MASK)]


def mask_of(part: str, parts: Collection[str]) -> str:
    """The mask that goes with a part, of all parts of a batch; of the first row, if of no other."""
    name = DECODER + part if part == "labels" else part
    for mask in masks_of(parts):
        row = mask.removesuffix(MASK)
        if row and name.startswith(row):
            return mask
    return MASK
