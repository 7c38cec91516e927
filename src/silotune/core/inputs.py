"""What a model reads, and inputs of that form that belong to nobody.

A synthetic batch shows that every trained tensor is covered before any record is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TextInput:
    """Token ids with an attention mask.

    Attributes:
        vocabulary: token ids are below this.
        special: ids with a meaning of their own: padding, start, end, mask.
        pad: the padding id.
        num_labels: classes; 0 for a language model.
    """

    vocabulary: int
    special: frozenset[int]
    pad: int
    num_labels: int = 0


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """Pixel values.

    Attributes:
        shape: (channels, height, width).
        num_labels: classes.
    """

    shape: tuple[int, int, int]
    num_labels: int


InputSpec = TextInput | ImageInput


def synthetic_inputs(
    spec: InputSpec, lengths: Sequence[int], g: torch.Generator
) -> dict[str, Tensor]:
    """Random examples: texts of ordinary tokens, padded on the right to the longest; or images.

    Args:
        spec: what the model reads.
        lengths: tokens of each example; of images only their number counts.
        g: draws them.
    """
    if isinstance(spec, ImageInput):
        return {"pixel_values": torch.randn(len(lengths), *spec.shape, generator=g)}
    ordinary = torch.tensor([i for i in range(spec.vocabulary) if i not in spec.special])
    width = max(lengths)
    ids = ordinary[torch.randint(len(ordinary), (len(lengths), width), generator=g)]
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids.where(mask.bool(), torch.tensor(spec.pad)), "attention_mask": mask}
