"""Observer: what the audit's own objects see of training: the records and gradients of each step.

The records and the optimiser of an audit are its own, so they can take notes: every step is a line
in the silo's folder, whatever process trains it. An adversary who sees messages sees none of this.
But each step is accounted as if its gradient were released, and coins must be fair whether or not
somebody could find out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from silotune.core import Batch, ClientDataset, Key
from silotune.optim.base import Moves

from .checks import Numbers

STEPS, GRADIENTS = "steps.jsonl", "gradients.bin"
"""In a silo's folder: the records that each step read and the tensors that it moved, one line a
step; and their gradients, as the optimiser was given them."""


@dataclass(eq=False)
class Observer:
    """Takes notes in one process, in which one silo trains at a time."""

    home: Path | None = None
    read: list[int] = field(default_factory=list)

    def round(self) -> None:
        """A round begins; what was read before is no part of a step."""
        self.read = []

    def step(self, tensors: Mapping[Key, nn.Parameter]) -> None:
        """A step ends, which moved the tensors along their gradients."""
        assert self.home is not None, "a silo asks for the lengths of its records first"
        moved = {key: p.grad.flatten() for key, p in tensors.items() if p.grad is not None}
        with (self.home / STEPS).open("a") as file:
            file.write(json.dumps([self.read, [*moved], [len(t) for t in moved.values()]]) + "\n")
        with (self.home / GRADIENTS).open("ab") as file:
            for t in moved.values():
                file.write(t.double().cpu().numpy().tobytes())
        self.read = []


@dataclass(frozen=True, eq=False)
class ObservedRecords:
    """Records that note who reads them.

    Attributes:
        records: the real ones.
        observer: takes the notes.
        home: the silo's folder.
    """

    records: ClientDataset
    observer: Observer
    home: Path

    @property
    def lengths(self) -> Sequence[int]:
        """Of the records."""
        self.observer.home = self.home
        return self.records.lengths

    def batch(self, indices: Sequence[int]) -> Batch:
        """Of the records."""
        self.observer.home = self.home
        self.observer.read += indices
        return self.records.batch(indices)


@dataclass(frozen=True)
class ObservedSGD:
    """Plain SGD that notes where steps end.

    With it a silo's message is where it began less the sum of its steps' gradients, so an adversary
    can read them. Any other optimiser is post-processing of the same gradients.

    Attributes:
        lr: learning rate.
        observer: takes the notes; None for none.
    """

    moves_pairs: ClassVar[Moves] = Moves.ANYTHING
    basis_free: ClassVar[bool] = False

    lr: float
    observer: Observer | None = None

    def build(self, tensors: Mapping[Key, nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """One group over all tensors."""
        optimizer = torch.optim.SGD(tensors.values(), lr=lr)
        if self.observer is not None:
            observer = self.observer
            observer.round()

            def note(*_: Any) -> None:
                observer.step(tensors)

            optimizer.register_step_post_hook(note)
        return optimizer


class Step(NamedTuple):
    """One local step of one silo.

    Attributes:
        read: the records that it read.
        moved: what its optimiser was given, by key, flat, float64.
    """

    read: Sequence[int]
    moved: Mapping[Key, Numbers]


def steps_of(home: Path) -> list[Step]:
    """All steps of a silo, in order."""
    path = home / STEPS
    if not path.is_file():
        return []
    found, numbers = list[Step](), np.fromfile(home / GRADIENTS)
    for line in path.read_text().splitlines():
        read, keys, sizes = json.loads(line)
        parts = np.split(numbers[: sum(sizes)], np.cumsum(sizes)[:-1])
        numbers = numbers[sum(sizes) :]
        found.append(Step(read, dict(zip(map(Key.of, keys), parts, strict=True))))
    return found
