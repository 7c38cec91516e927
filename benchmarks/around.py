"""What the time around a step comes to: each cure beside what it replaced, in turn.

``python -m benchmarks.around [--quick] [--threads N]``

So far: a batch cut where it is cheapest, beside parts of 32 records of similar length. Records
have the lengths of SST-2's training phrases.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from silotune.adapters import AdaptedModel
from silotune.core import Batch
from silotune.engine.batches import microbatches
from silotune.objectives import SequenceClassification

from .measure import Ratio, arguments, clock_for, in_turns, print_json, print_table, ratio
from .peers import Case, adapted_model, mechanism, model_folder, open_model
from .records import Drawn, draw, silos
from .sides import MICRO_BATCH

BATCHES = (64, 200)


def main() -> None:
    """Time every cure."""
    options = arguments("What the time around a step comes to.").parse_args()
    clock = clock_for(options.threads)
    batches, repetitions = ((16,), 3) if options.quick else (BATCHES, 9)
    cut: dict[int, Ratio] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(Path(scratch), quick=options.quick)
        for batch_size in batches:
            case = Case(model=folder, batch_size=batch_size)
            [examples] = silos(None, open_model(case)[0], 1)
            drawn = draw(examples, batch_size, 2, seed=batch_size)
            adapted = adapted_model(case)
            runs = {
                name: _steps(case, adapted, drawn, cuts)
                for name, cuts in (("parts of 32", _parts), ("cheapest", _cheapest))
            }
            seconds = in_turns(runs, repetitions, clock)
            cut[batch_size] = ratio(seconds["parts of 32"], seconds["cheapest"])
    rows = [[str(n), str(r)] for n, r in cut.items()]
    print_table("A private step, parts of 32 over the cheapest cut", ["batch", "times"], rows)
    print_json(
        benchmark="around",
        threads=options.threads,
        parts_over_cheapest_cut={str(n): r.to_json() for n, r in cut.items()},
    )


Cuts = Callable[[Sequence[int], Sequence[int], AdaptedModel], Sequence[Sequence[int]]]


def _parts(rows: Sequence[int], lengths: Sequence[int], _: AdaptedModel) -> list[list[int]]:
    ordered = sorted(rows, key=lambda i: (lengths[i], i))
    return [ordered[i : i + MICRO_BATCH] for i in range(0, len(ordered), MICRO_BATCH)]


def _cheapest(
    rows: Sequence[int], lengths: Sequence[int], adapted: AdaptedModel
) -> list[Sequence[int]]:
    return list(microbatches(rows, lengths, MICRO_BATCH, adapted.device))


def _steps(case: Case, adapted: AdaptedModel, drawn: Drawn, cuts: Cuts) -> Callable[[], None]:
    """Private steps on the drawn batches, cutting included."""
    examples, objective = drawn.examples, SequenceClassification(text="text", label="label")
    privacy = mechanism(case, records=len(examples.lengths))
    trained = {key: p for key, p in adapted.tensors.items() if p.requires_grad}

    def losses(batch: Batch) -> Tensor:
        return objective.losses(adapted.model, batch)

    def run() -> None:
        draws = privacy.draws(0, None)
        for rows in drawn.batches:
            parts = cuts(rows, examples.lengths, adapted)
            ready = (examples.batch(part) for part in parts)
            privacy.gradients(trained, adapted.sink, losses, ready, draws)

    return run


if __name__ == "__main__":
    main()
