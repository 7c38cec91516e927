"""Isolation: a record's gradient is its own, whatever else goes through the model or went before.

Clipping bounds what a record adds to a sum. It does not bound what the record does to the rows of
others: through a statistic of the batch, a rotary scale chosen for the longest text, padding that
is attended to, or something that a module keeps for the next pass. So made-up records, short ones,
ones of full length and one token less, are computed alone and unpadded, and again beside each
other, in every place, beside the longest, and after all that.

What is left is rounding: a kernel may add up in another order where a batch is larger. It is
measured in units of C, with every record taken to be as long as C, as clipping makes the long ones:

    coupling = | sum_j (g_j' - g_j) / |g_j| |

over the others j, g_j alone and g_j' beside the longest record. Whether that record is there or not
moves their clipped sum by at most twice as much.

Shapes: n records, P trained numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from .hard_choices import hard_choice
from .passes import MOST, Passes, RecordsMixError, StateKeptError

ROUNDING = 1e-4
"""What rounding in float32 may do to a gradient, relative to its length.

It does 1e-6 to 1e-5 in the models that were tried, and what couples by construction 1e-2 and more.
At this limit 128 records that all moved the same way would move their sum by 0.013 C."""

PLACES, COMPANY = 8, 4
"""Short records that change places, and records that the longest one is put beside."""

LARGEST = 1.0
"""Root mean square of a tensor's numbers, at which coupling is measured besides.

Larger than what training makes. Rounding errors grow with the numbers, so a client that clips
trains from none larger (``client_agreement``).
"""


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """How far the clipped sum of other records moves when one goes through the model with them.

    Attributes:
        together: the most records that go through the model at once; with 1 nothing can move.
        others: how many records were beside the longest.
        moved: by how many C, at factors near those of birth; the worst of all tries.
        moved_at_large: the same at factors of ``large_norm``.
        small_norm: L2 norm of all factors at ``moved``.
        large_norm: at ``moved_at_large``.
        moved_if_together: by how many C that sum, or one of them, would move if they did not go
            through one by one, which is why they do; 0 where nobody looked.
    """

    together: int
    others: int = 0
    moved: float = 0.0
    moved_at_large: float = 0.0
    small_norm: float = 0.0
    large_norm: float = 0.0
    moved_if_together: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Lineup:
    """Which made-up records go through the model with which; numbers are their places.

    Attributes:
        longest: one of the longest.
        short: the shortest, which change places.
        varied: one of every other length; any, where lengths are hardly unlike.
        beside: of unlike lengths, put beside the longest.
    """

    longest: int
    short: Sequence[int]
    varied: Sequence[int]
    beside: Sequence[int]

    @classmethod
    def of(cls, lengths: Sequence[int], micro_batch: int) -> Lineup:
        """Of records of these lengths, never more at once than will be in training.

        Args:
            lengths: two or more.
            micro_batch: records that go through the model at once.
        """
        *others, longest = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
        first = {lengths[i]: i for i in reversed(others)}
        unlike = sorted(first.values(), key=lambda i: lengths[i])
        varied = unlike if len(unlike) >= COMPANY else others[:PLACES]
        size = min(COMPANY, micro_batch - 1, len(varied))
        steps = max(size - 1, 1)
        return cls(
            longest=longest,
            short=others[: min(PLACES, micro_batch)],
            varied=varied,
            beside=[varied[-1 - i * (len(varied) - 1) // steps] for i in range(size)],
        )

    @property
    def everyone(self) -> list[int]:
        """All that take part, each once, the longest last."""
        seen = dict.fromkeys([*self.short, *self.varied, *self.beside])
        return [*(i for i in seen if i != self.longest), self.longest]

    def batches(self) -> Iterator[list[int]]:
        """What goes together: short records in every place; the longest last, and first."""
        for shift in range(len(self.short)):
            yield [*self.short[shift:], *self.short[:shift]]
        yield [*self.beside, self.longest]
        yield [self.longest, *self.beside]


def check_apart(passes: Passes, alone: Mapping[int, Tensor], lineup: Lineup) -> float:
    """See that records that go through the model together do not change each other.

    Args:
        passes: at small factors.
        alone: (P,) of everyone, alone and unpadded, in a fresh process.
        lineup: with two records at once or more.

    Returns:
        The coupling.

    Raises:
        RecordsMixError: if one does.
    """
    sums, single, mixed = [0.0], 0.0, ""
    for which in lineup.batches():
        moves = relative(passes.together(which), torch.stack([alone[i] for i in which]))
        moved = moves.norm(dim=1).nan_to_num(nan=MOST)
        others = torch.tensor([i != lineup.longest for i in which], device=moves.device)
        sums.append(float(moves[others].sum(dim=0).norm()))
        if not mixed and moved.max() > ROUNDING:
            suspects = moved.argsort(descending=True).tolist()
            mixed = _mixed(passes, which, suspects)
        single = max(single, float(moved.max()))
    if mixed:
        raise RecordsMixError(mixed, max(single, *sums))
    _refuse_hard_choices(passes, lineup)
    return max(sums)


def coupling(passes: Passes, lineup: Lineup) -> float:
    """How far the longest record moves the sum of others that are short, in units of C."""
    short = list(lineup.short[: len(lineup.beside)])
    alone = torch.stack([passes.alone(i) for i in short])
    beside = passes.together([*short, lineup.longest])[:-1]
    return float(relative(beside, alone).sum(dim=0).norm())


def relative(found: Tensor, expected: Tensor) -> Tensor:
    """(n, P): by how much rows differ, in units of the length that is expected of each."""
    size = torch.maximum(expected.norm(dim=1), found.norm(dim=1)).clamp(min=1e-30)
    return (found - expected) / size[:, None]


def scores(passes: Passes, which: Sequence[int]) -> Tensor:
    """(n,) losses of records one by one, as a model is scored."""
    model = passes.adapted.model
    model.eval()
    try:
        with torch.no_grad():
            return torch.cat([passes.losses([i]) for i in which])
    finally:
        model.train()


def refuse_state(
    passes: Passes,
    before: dict[int, Tensor],
    scored: Tensor,
    buffers: Mapping[str, Tensor],
    tolerance: float,
) -> None:
    """See that records are what they were, now that others went through the model.

    They came in ascending order of length, so that no longer one was before them; they come back in
    descending order, so that no shorter one makes a module forget.

    Args:
        passes: at the factors of before.
        before: (P,) of some records, alone, in ascending order of length.
        scored: (n,) their losses, as a model is scored.
        buffers: of the model, as they were then.
        tolerance: what may differ between two passes of the same record.

    Raises:
        StateKeptError: if something is kept that changes them.
    """
    moved = 0.0
    for i, expected in reversed(before.items()):
        moved = max(moved, float(relative(passes.alone(i)[None], expected[None]).norm()))
    now = scores(passes, list(before))
    moved = max(moved, float(((now - scored).abs() / scored.abs().clamp(min=1e-6)).max()))
    if not moved <= tolerance:
        kept = [n for n, b in passes.adapted.model.named_buffers() if _differs(b, buffers.get(n))]
        raise StateKeptError(
            f"what a record gives changes by {moved:.1%} after other records went through the "
            f"model, which keeps something of them ({kept[0] if kept else 'in no buffer'})"
        )


def _refuse_hard_choices(passes: Passes, lineup: Lineup) -> None:
    for record in {lineup.short[0], lineup.longest}:
        compute = partial(passes.losses, [record])
        found = hard_choice(passes.adapted.model, compute, passes.records.values())
        if found:
            raise RecordsMixError(
                f"{found} makes a hard choice by what it computed of a record; in a near tie the "
                "other records of a batch decide, so clipping does not bound what one record "
                "changes",
                moved=MOST,
            )


def _mixed(passes: Passes, which: Sequence[int], suspects: Sequence[int]) -> str:
    places = (_where(passes, which, suspect) for suspect in suspects)
    return (
        f"{next(filter(None, places), 'the objective')} mixes the examples of a batch: what a "
        "record gives depends on the others, on their lengths or on its place, so clipping does "
        "not bound what one record changes"
    )


@torch.no_grad()
def _where(passes: Passes, which: Sequence[int], place: int) -> str:
    """The first module that gives a record something else than alone; empty if none does."""
    model = passes.adapted.model
    together = _outputs(passes, which)
    for name, alone in _outputs(passes, [which[place]]).items():
        pairs = zip(alone, together.get(name, []), strict=False)
        if any(_is_other(a, b, place) for a, b in pairs):
            return f"{name} ({type(model.get_submodule(name)).__name__})"
    return ""


def _outputs(passes: Passes, which: Sequence[int]) -> dict[str, list[Tensor]]:
    """What every module gives, by name, in the order in which they end: the inner ones first."""
    found: dict[str, list[Tensor]] = {}
    hooks = []
    for name, module in passes.adapted.model.named_modules():
        if name:

            def keep(_: nn.Module, __: object, output: object, name: str = name) -> None:
                given = output if isinstance(output, tuple | list) else [output]
                found[name] = [t.detach().clone() for t in given if isinstance(t, Tensor)]

            hooks.append(module.register_forward_hook(keep))
    try:
        passes.losses(which)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _is_other(alone: Tensor, together: Tensor, place: int) -> bool:
    """Whether a record's part of an output differs; what has no part of its own is not compared."""
    if alone.dim() != together.dim() or not alone.dim() or not alone.is_floating_point():
        return False
    own = together[min(place, len(together) - 1)][None]
    own = own[tuple(slice(size) for size in alone.shape)]
    if own.shape != alone.shape:
        return False
    return bool((own - alone).norm() > ROUNDING * alone.norm().clamp(min=1e-30))


def _differs(now: Tensor, before: Tensor | None) -> bool:
    return before is None or now.shape != before.shape or not torch.equal(now, before)
