"""Remembered: records with what the frozen prefix makes of each, computed once and kept.

All of them are computed when the first batch is asked for, so that the time of a later step does
not tell which records were drawn before. Where single records are hidden each that is trained on
goes through the model alone: what is kept of it is then a function of that record and of nothing
beside it. Held-out records go together, as they are scored.

It is as good as the records: it lies in memory, or in a file without a name in the client's own
folder, which nobody else can open and which is gone with the process, however that ends.

Shapes: N records, S positions in all, h features; n records of a batch, T positions.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, NamedTuple

import torch
from torch import Tensor

from silotune.adapters import AdaptedModel
from silotune.adapters.prefix import PREFIX, without_grad
from silotune.core import Batch, ClientDataset, joinable
from silotune.core.masks import MASK, masks_of
from silotune.objectives import PerExampleLoss

from .batches import microbatches, pass_tokens, to_device

Keep = Callable[[Iterator[Tensor], int], Tensor]
"""From parts (k, h) and the number S of their rows to all of them end to end, (S, h)."""


class States(NamedTuple):
    """What the prefix gives for all records.

    Attributes:
        flat: (S, h).
        starts: (N,) where each record begins.
        counts: (N,) positions of each.
    """

    flat: Tensor
    starts: Tensor
    counts: Tensor


@dataclass(frozen=True, eq=False)
class Remembered:
    """Examples whose batches bring what the frozen prefix makes of them.

    Attributes:
        plain: the examples.
        adapted: the model; its prefix is not None.
        objective: calls it.
        together: the most records that are computed at once; those of a batch that has as many
            records as all of them are computed in the same parts as without memory.
        keep: where the states go.
    """

    plain: ClientDataset
    adapted: AdaptedModel
    objective: PerExampleLoss
    together: int
    keep: Keep

    @property
    def lengths(self) -> Sequence[int]:
        """As of the examples."""
        return self.plain.lengths

    @property
    def padding(self) -> Mapping[str, int]:
        """As of the examples, if they say so.

        Raises:
            AttributeError: if they do not, as if this were not there.
        """
        if not joinable(self.plain):
            raise AttributeError(f"{type(self.plain).__name__} does not say how it is padded")
        return self.plain.padding

    def batch(self, indices: Sequence[int]) -> Batch:
        """The records at ``indices``, with their states (n, T, h), which are 0 at padding."""
        batch, rows = self.plain.batch(indices), torch.as_tensor(list(indices))
        brought = {
            row + PREFIX: _padded(states, rows, batch.get(row + MASK))
            for row, states in self._states.items()
        }
        return {**batch, **brought}

    @cached_property
    def _states(self) -> Mapping[str, States]:
        """Of all records, in the order in which they are computed: short ones first.

        By how the names of a row's parts begin: a record has one row of positions, or one for each
        text that has a pass of its own, in the order of passes.
        """
        everything, lengths = range(len(self.lengths)), self.lengths
        parts = list(microbatches(everything, lengths, self.together, pass_tokens(self.adapted)))
        first = self.plain.batch(parts[0])
        masks = [mask for mask in masks_of(first) if first[mask].dim() == 2]
        rows = [mask.removesuffix(MASK) for mask in masks] or [""]
        return {row: self._of_row(row, bool(masks), parts) for row in rows}

    def _of_row(self, row: str, masks: bool, parts: Sequence[Sequence[int]]) -> States:
        """Of one row of all records."""
        order = torch.tensor([i for part in parts for i in part])
        if masks:  # what a record costs need not be how many positions it fills
            own = [self.plain.batch(part)[row + MASK].bool().sum(dim=1) for part in parts]
            counts = torch.cat(own)
        else:
            counts = torch.full_like(order, self._computed(row, parts[0][:1]).shape[0])
        sizes = torch.empty_like(order)
        sizes[order] = counts
        starts = torch.empty_like(order)
        starts[order] = counts.cumsum(0) - counts
        flat = self.keep((self._computed(row, part) for part in parts), int(counts.sum()))
        return States(flat, starts, sizes)

    def _computed(self, row: str, part: Sequence[int]) -> Tensor:
        """(k, h): what the prefix gives at the filled positions of some records, end to end."""
        adapted, prefix = self.adapted, self.adapted.prefix
        assert prefix is not None, "asked of a model without a prefix"
        batch = to_device(self.plain.batch(part), adapted.device)
        own = {name.removeprefix(row): t for name, t in batch.items() if name.startswith(row)}
        batch = {**batch, **own}  # the first pass, which is looked at, then reads this row
        training = adapted.model.training
        adapted.model.eval()
        try:
            with torch.inference_mode():
                found = prefix.captured(lambda: adapted.losses(self.objective.losses, batch))
                filled = _filled(batch.get(MASK), found.shape[:2]).to(found.device)
                if filled.shape != found.shape[:2]:
                    raise ValueError(
                        "prefix_cache: the model has other positions than its records; set it to "
                        "off"
                    )
                return without_grad(found[filled])
        finally:
            adapted.model.train(training)


def plain(examples: ClientDataset) -> ClientDataset:
    """The records themselves."""
    return examples.plain if isinstance(examples, Remembered) else examples


def forget(*examples: ClientDataset | None) -> None:
    """Let go what was kept of records; it is computed again should they be used again."""
    for kept in examples:
        if isinstance(kept, Remembered):
            vars(kept).pop("_states", None)


def in_memory(parts: Iterator[Tensor], rows: int) -> Tensor:
    """Keep states in memory, (S, h)."""
    flat, begin = torch.empty(0), 0
    for part in parts:
        if not begin:
            flat = torch.empty(rows, part.shape[1], dtype=part.dtype)
        flat[begin : begin + len(part)] = part
        begin += len(part)
    return flat


def in_folder(folder: Path) -> Keep:
    """Keep states in a file of one folder that has no name, so that it goes with the process.

    Args:
        folder: is made if it is not there.

    Raises:
        ValueError: when it is used, if the folder has no room.
    """

    def keep(parts: Iterator[Tensor], rows: int) -> Tensor:
        width, dtype = 0, torch.float32
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                for part in parts:
                    width, dtype = part.shape[1], part.dtype
                    file.write(part.contiguous().view(torch.uint8).numpy().data)
                file.flush()
                return _mapped(file, dtype).view(rows, width)
        except OSError as error:
            raise ValueError(
                f"prefix_cache: {folder} cannot hold what the layers below the adapters give "
                f"({error.strerror}); make room, or set it to memory or off"
            ) from None

    return keep


def _mapped(file: IO[bytes], dtype: torch.dtype) -> Tensor:
    """All numbers of a file, read as they are asked for; changes stay in this process.

    Python's own maps keep a file open each, and a process may have a thousand; torch's need a name.
    """
    name = Path(f"/dev/fd/{file.fileno()}")
    if not name.exists():
        return torch.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), dtype=dtype)
    size = file.tell() // dtype.itemsize
    return torch.from_file(str(name), shared=False, size=size, dtype=dtype)


def _padded(states: States, rows: Tensor, mask: Tensor | None) -> Tensor:
    """(n, T, h): the states of some records, where their mask is not 0."""
    starts, counts = states.starts[rows], states.counts[rows]
    filled = _filled(mask, (len(rows), int(counts.max())))
    first = counts.cumsum(0) - counts
    places = torch.arange(int(counts.sum())) + (starts - first).repeat_interleave(counts)
    padded = states.flat.new_zeros(*filled.shape, states.flat.shape[1])
    padded[filled] = states.flat[places]
    return padded


def _filled(mask: Tensor | None, shape: Sequence[int]) -> Tensor:
    """(n, T), True where a record has a position; everywhere, for records without a mask."""
    if mask is not None and mask.dim() == 2:
        return mask.bool()
    return torch.ones(*shape, dtype=torch.bool)
