"""Images as a model reads them: decoded when a batch is asked for, never all at once.

Shapes: n examples, c channels, h x w pixels as the model's processor makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol

import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from silotune.core.dataset import Batch

from .columns import slices
from .targets import target_array

if TYPE_CHECKING:
    from PIL.Image import Image


class Processor(Protocol):
    """What is used of transformers' image processors."""

    def __call__(self, *, images: list[Any], return_tensors: str) -> Mapping[str, Tensor]:
        """Resized and normalised ``pixel_values`` (n, c, h, w)."""
        ...


@dataclass(frozen=True, eq=False)
class ImageExamples:
    """Records of a readable table with ``image`` and ``label``.

    Attributes:
        table: bytes, paths, or both, a cell; decoded as RGB.
        processor: the model's own, public.
        where: what the table is called in an error.
    """

    table: Dataset
    processor: Processor
    where: str

    @property
    def lengths(self) -> Sequence[int]:
        """1 for every image: they all cost the same."""
        return [1] * len(self.table)

    @property
    def padding(self) -> Mapping[str, int]:
        """None: they are all of one size."""
        return {}

    @cached_property
    def _targets(self) -> NDArray[Any]:
        """(N,) or (N, C)."""
        found = target_array(self.table)
        assert found is not None, "an image without a label"
        return found

    def batch(self, indices: Sequence[int]) -> Batch:
        """``pixel_values`` (n, c, h, w), and ``labels``: ids (n,), or marks (n, C) float32."""
        rows = [int(i) for i in indices]
        cells = self.table[rows]
        images = [
            decoded(cell, row, self.where) for cell, row in zip(cells["image"], rows, strict=True)
        ]
        pixels = self.processor(images=images, return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixels, "labels": torch.from_numpy(self._targets[rows])}


def image_examples(table: Dataset, processor: Processor, where: str) -> ImageExamples:
    """Check that every image can be read to its end, before anything trains.

    Raises:
        ValueError: if Pillow is missing, or naming the first record that is no image.
    """
    for first, columns in slices(table):
        for row, cell in enumerate(columns["image"], first):
            check_image(cell, row, where)
    return ImageExamples(table, processor, where)


def check_image(cell: Any, row: int, where: str) -> None:
    """Read the image in one cell to its end and keep nothing; a JPEG at an eighth of its size.

    Raises:
        ValueError: as ``decoded``.
    """
    with _opened(cell, row, where) as image:
        try:
            image.draft("RGB", (1, 1))
            image.load()
        except Exception:  # as in _opened
            raise _broken(row, where) from None


def decoded(cell: Any, row: int, where: str) -> Image:
    """The image in one cell, as RGB: its bytes, a path, or {bytes, path}.

    Raises:
        ValueError: if Pillow is missing, or naming the row, if it is no image.
    """
    with _opened(cell, row, where) as image:
        try:
            return image.convert("RGB")
        except Exception:  # as in _opened
            raise _broken(row, where) from None


def _opened(cell: Any, row: int, where: str) -> Image:
    """The image in one cell; only its header is read yet."""
    try:
        from PIL import Image
    except ImportError:
        raise ValueError("image: images need Pillow: pip install 'silotune[images]'") from None
    try:
        content = cell["bytes"] or cell["path"] if isinstance(cell, dict) else cell
        return Image.open(BytesIO(content) if isinstance(content, bytes) else content)
    except Exception:  # each format of Pillow raises kinds of its own, which may quote the cell
        raise _broken(row, where) from None


def _broken(row: int, where: str) -> ValueError:
    return ValueError(f"image: row {row} (the first is 0) of {where} is no readable image")
