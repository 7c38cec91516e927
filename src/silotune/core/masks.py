"""Masks: which part of a batch tells where another part is padding.

A record may have more than one row of positions: what an encoder reads and what a decoder writes.
Each row has a mask (n, T), 1 where there is something, and the names of its parts begin like that
of its mask.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

MASK = "attention_mask"
"""The mask of a record's first row, or only one; those of others end so."""

DECODER = "decoder_"
"""How the names begin of what a decoder reads; labels lie beside it."""

PAIR = "pair_"
"""How the names begin of a second text that a model reads in a pass of its own."""


def are_of_tokens(labels: Tensor) -> bool:
    """Whether labels are ids, one for each token (n, T), and not marks or numbers of records."""
    return labels.dim() == 2 and not labels.is_floating_point()


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
