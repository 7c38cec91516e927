"""The batch of one step: parts that go through the model one by one, and their clipped sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from silotune.adapters import AdaptedModel
from silotune.core import Key
from silotune.core.outer import Rows
from silotune.privacy import ExampleLevel, RoundRandomness
from silotune.privacy.mechanisms.clipping import NOTHING, Accumulated

from .nested import moved


class Batch:
    """The records of one step, in parts; iterated once. There may be none."""

    def __init__(
        self,
        parts: Sequence[Callable[[], tuple[Any, int]]],
        model: AdaptedModel,
        mechanism: ExampleLevel,
        draws: RoundRandomness,
    ) -> None:
        self.draws = draws
        self.rows: dict[Key, Rows] = {}
        self.in_hand = 0
        self.part: Any = None
        self._parts, self._model, self._mechanism = parts, model, mechanism
        self._next = 0
        self._collecting: Any = None
        self._clipped: Accumulated = NOTHING

    def __iter__(self) -> Iterator[Any]:
        """Each part as ``collate_fn`` makes it, on the model's device."""
        if self._next:
            raise ValueError("batch: its parts were asked for already; each is seen once")
        while self._next < len(self._parts):
            if self.in_hand:
                raise ValueError("backward: was not called for the last part of the batch")
            part, records = self._parts[self._next]()
            self._next += 1
            part = moved(part, self._model.device)
            self._collecting = self._model.sink.collect_rows(records)
            self.rows = self._collecting.__enter__()
            self.part, self.in_hand = part, records
            yield part

    def add(self) -> None:
        """Clip what the backward pass left, and close the part."""
        try:
            self._clipped = self._clipped.plus(
                self.rows, self.in_hand, self._mechanism.max_grad_norm, self._mechanism.grid
            )
        finally:
            self.close()

    def close(self) -> None:
        """No part is in hand any more."""
        if self.in_hand:
            self._collecting.__exit__(None, None, None)
            self.part, self.in_hand, self.rows = None, 0, {}

    def finished(self) -> Accumulated:
        """The clipped sums.

        Raises:
            ValueError: if a part has not been through ``backward``.
        """
        if self.in_hand or self._next < len(self._parts):
            raise ValueError(
                "optimizer.step: not all parts of the batch have been through backward; a step on "
                "some of them is not the one that is accounted"
            )
        return self._clipped


class Records:
    """The dataset, cut into parts."""

    def __init__(
        self, dataset: Any, collate_fn: Callable[[list[Any]], Any], micro_batch: int
    ) -> None:
        self.number: int = len(dataset)
        self._dataset, self._collate, self._micro_batch = dataset, collate_fn, micro_batch

    def parts(self, drawn: Sequence[int]) -> list[Callable[[], tuple[Any, int]]]:
        """What reads each part, and how many records it has."""
        size = self._micro_batch
        return [self._reader(drawn[i : i + size]) for i in range(0, len(drawn), size)]

    def _reader(self, indices: Sequence[int]) -> Callable[[], tuple[Any, int]]:
        return lambda: (self._collate([self._dataset[i] for i in indices]), len(indices))
