"""What a round, a step and its books come to: a part of ``benchmarks.around``.

The limit of a step with adapters is the frozen base's forward pass and the gradient down to the
lowest adapted layer: nobody who trains there computes less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from silotune.adapters import AdaptedModel
from silotune.core import Batch, ClientDataset
from silotune.engine.remembered import Remembered, in_memory
from silotune.objectives import SequenceClassification

from . import bookkeeping
from .bookkeeping import Spent
from .measure import Clock, Ratio, in_turns, ratio
from .peers import PEERS, Case, adapted_model, open_model, random_batch
from .records import Drawn, draw, silos
from .round import beside_usual_loop

OBJECTIVE = SequenceClassification(text="text", label="label")


def whole_round(
    folder: str, scratch: Path, batch_size: int, times: int, clock: Clock
) -> dict[str, Ratio]:
    """The usual loop (PEFT with Opacus' hooks) over a private round, upper half adapted.

    Three silos of records as long as SST-2's, two steps each. In the second row the layers below
    are remembered of every record that is drawn, each computed alone before the clock runs.
    """
    depth = open_model(Case(model=folder))[0].model.config.num_hidden_layers  # type: ignore[union-attr]
    case = Case(model=folder, batch_size=batch_size, layers=tuple(range(depth // 2, depth)))
    examples = silos(None, open_model(case)[0], 3)
    many = [draw(own, batch_size, 2, seed) for seed, own in enumerate(examples)]
    adapted = adapted_model(case)
    return {
        name: beside_usual_loop(case, adapted, many, scratch / name, times, clock, ours)
        for name, ours in (
            ("three silos, upper half", many),
            ("lower half remembered", [_remembering(adapted, own) for own in many]),
        )
    }


def _remembering(adapted: AdaptedModel, drawn: Drawn) -> Drawn:
    """The same batches of a silo that has no other records."""
    rows = sorted({row for batch in drawn.batches for row in batch})
    place = {row: i for i, row in enumerate(rows)}
    kept = Remembered(Chosen(drawn.examples, rows), adapted, OBJECTIVE, 1, in_memory)
    batches = [[place[row] for row in batch] for batch in drawn.batches]
    return Drawn(kept, batches, drawn.records)


@dataclass(frozen=True)
class Chosen:
    """Some records."""

    examples: ClientDataset
    rows: Sequence[int]

    @property
    def lengths(self) -> Sequence[int]:
        """Of these."""
        return [self.examples.lengths[row] for row in self.rows]

    def batch(self, indices: Sequence[int]) -> Batch:
        """As of all."""
        return self.examples.batch([self.rows[i] for i in indices])


def all_linear(
    folder: str, shapes: Sequence[tuple[int, int]], times: int, clock: Clock
) -> dict[str, Ratio]:
    """The limit over a private step of FFA-LoRA on all linear maps, by records and tokens."""
    found = {}
    for records, tokens in shapes:
        case = Case(model=folder, targets="all-linear", batch_size=records)
        batch = random_batch(records, tokens)
        steps = {"limit": limited(case), "ours": PEERS["ours private"](case).step}
        runs = {name: partial(step, batch) for name, step in steps.items()}
        seconds = in_turns(runs, times, clock)
        found[f"{records}x{tokens}"] = ratio(seconds["limit"], seconds["ours"])
    return found


def limited(case: Case) -> Callable[[Batch], None]:
    """A step that computes what every adapter needs, and no more."""
    loaded, sites = open_model(case)
    model, leaves = loaded.model.train().requires_grad_(False), list[Tensor]()

    def down_to_here(_: object, __: object, output: Tensor) -> None:
        if not output.requires_grad:
            leaves.append(output.requires_grad_())

    for site in sites:
        site.module.register_forward_hook(down_to_here)

    def step(batch: Batch) -> None:
        leaves.clear()
        logits = model(**{name: t for name, t in batch.items() if name != "labels"}).logits
        loss = F.cross_entropy(logits, batch["labels"], reduction="sum")
        torch.autograd.grad(loss, leaves)

    return step


def books(rounds: int, window: int, clock: Clock) -> float:
    """CPU time of bookkeeping in late rounds over that in early ones, epsilon left out."""
    epsilons = Spent(clock)
    clocks = {"books": lambda: clock() - epsilons.seconds}
    case = bookkeeping.Case(3, rounds, window)
    seconds = bookkeeping.seconds_by_round(case, clocks, epsilons)["books"]
    early = seconds[bookkeeping.WARM_UP : bookkeeping.WARM_UP + window]
    return round(median(seconds[-window:]) / median(early), 3)
