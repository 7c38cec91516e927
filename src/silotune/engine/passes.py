"""Passes: what gradients made-up records have, as they are trained and by ordinary autograd.

Shapes: n records, P trained numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from silotune.adapters import AdaptedModel
from silotune.core import Batch, Crowd, Key
from silotune.core.outer import dense
from silotune.objectives import PerExampleLoss

from .batches import taken

MOST = 2.0
"""What one clipped gradient can move by, in units of C."""


class GradientCheckError(ValueError):
    """Per-example gradients are not what they must be; training would break the guarantee."""


class RecordsMixError(GradientCheckError):
    """A record's gradient depends on the records that go through the model with it.

    Attributes:
        moved: by how many C, as far as it was measured; 2, the most that one record can move by,
            where it may jump.
    """

    def __init__(self, text: str, moved: float) -> None:
        super().__init__(text)
        self.moved = moved


class StateKeptError(GradientCheckError):
    """A record's gradient or score depends on what went through the model before."""


class Found(NamedTuple):
    """What one pass gave.

    Attributes:
        losses: (n,).
        gradients: by key; (n, *shape) of the sink, and of autograd the sum, (*shape).
    """

    losses: Tensor
    gradients: dict[Key, Tensor]


@dataclass(frozen=True, eq=False)
class Passes:
    """Forward and backward passes of some of the made-up records, as they would be trained.

    Attributes:
        adapted: the model, with what is trained requiring a gradient.
        objective: gives the losses.
        records: padded; what is taken of them is cut to the longest that is taken.
        own: the tensors of each client of a crowd, to which records belong in turn; empty where
            all records meet the model's.
    """

    adapted: AdaptedModel
    objective: PerExampleLoss
    records: Batch
    own: Sequence[Mapping[Key, Tensor]] = ()

    def losses(self, which: Sequence[int]) -> Tensor:
        """(n,) with their graph.

        Raises:
            GradientCheckError: if there is not one loss for each record.
        """
        losses = self.adapted.losses(self.objective.losses, taken(self.records, which))
        if losses.shape != (len(which),):
            raise GradientCheckError(
                f"objective: losses must be of shape ({len(which)},) for {len(which)} records, one "
                f"for each, not {tuple(losses.shape)}"
            )
        return losses

    def by_autograd(self, which: Sequence[int], *, weighed: bool = False) -> Found:
        """The sum over these records; a tensor that nothing reaches is left out.

        Args:
            which: of the records.
            weighed: by numbers from 1 to 2, so that nothing cancels in the sum.

        Raises:
            GradientCheckError: if the model refuses them.
        """
        for parameter in self.adapted.tensors.values():
            parameter.grad = None
        with refused_in_words():
            losses = self.losses(which)
            _total(losses, weighed=weighed).backward()
        tensors = self.adapted.tensors.items()
        found = {k: p.grad for k, p in tensors if p.requires_grad and p.grad is not None}
        return Found(losses.detach(), found)

    def by_sink(self, which: Sequence[int], *, weighed: bool = False) -> Found:
        """Row by row, as the mechanism gets them.

        Args:
            which: of the records.
            weighed: as for ``by_autograd``.

        Raises:
            GradientCheckError: if a layer does not see records.
        """
        crowd = self._crowd(which)
        with refused_in_words(), self.adapted.sink.collect_rows(len(which), crowd) as rows:
            losses = self.losses(which)
            _total(losses, weighed=weighed).backward()
            return Found(losses.detach(), {key: dense(r) for key, r in rows.items()})

    def by_sums(self, which: Sequence[int], *, weighed: bool = False) -> Found:
        """The sum over these records, as it is trained where no single record is hidden.

        Args:
            which: of the records.
            weighed: as for ``by_autograd``.

        Raises:
            GradientCheckError: if the model refuses them.
        """
        with self.adapted.sink.summed():
            return self.by_autograd(which, weighed=weighed)

    def alone(self, record: int) -> Tensor:
        """(P,) of one record, by autograd: what it is when nothing is beside it.

        Of a crowd's record by the sink, since autograd knows the model's tensors alone.

        Raises:
            RecordsMixError: if it cannot be told, as by a statistic that needs several.
        """
        try:
            found = self.by_sink([record]) if self.own else self.by_autograd([record])
        except GradientCheckError as error:  # which did not happen with several
            raise RecordsMixError(f"one record cannot be computed alone: {error}", MOST) from error
        return self._flat(found.gradients, batched=bool(self.own))[0]

    def together(self, which: Sequence[int]) -> Tensor:
        """(n, P) of records that go through the model at once, by the sink."""
        return self._flat(self.by_sink(which).gradients, batched=True)

    def _crowd(self, which: Sequence[int]) -> Crowd | None:
        if not self.own:
            return None
        clients = len(self.own)
        stacked = {key: torch.stack([own[key] for own in self.own]) for key in self.own[0]}
        owners = torch.tensor([i % clients for i in which], device=self.adapted.device)
        return Crowd(stacked, owners)

    def _flat(self, gradients: dict[Key, Tensor], *, batched: bool) -> Tensor:
        """All that is trained side by side, 0 where nothing came; widened to float32."""
        rows = next((len(g) for g in gradients.values()), 1) if batched else 1
        parts = []
        for key, parameter in self.adapted.tensors.items():
            if parameter.requires_grad:
                found = gradients.get(key)
                zero = parameter.new_zeros(rows, parameter.numel())
                parts.append(zero if found is None else found.detach().reshape(rows, -1))
        flat = torch.cat([part.to(self.adapted.device) for part in parts], dim=1)
        return flat.to(torch.promote_types(flat.dtype, torch.float32))


def _total(losses: Tensor, *, weighed: bool) -> Tensor:
    return losses @ torch.linspace(1, 2, len(losses)).to(losses) if weighed else losses.sum()


@contextmanager
def refused_in_words() -> Iterator[None]:
    """What a model, a layer or an objective refuses is a result of the check, in words."""
    try:
        yield
    except (GradientCheckError, torch.OutOfMemoryError):
        raise
    except ValueError as error:
        raise GradientCheckError(str(error)) from error
    except (RuntimeError, IndexError, TypeError) as error:
        raise GradientCheckError(
            f"the model cannot compute made-up records of the form that it is to read: {error}"
        ) from error
