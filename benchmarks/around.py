"""What the time around a step comes to: each cure beside what it replaced, in turn.

``python -m benchmarks.around [--quick] [--threads N]``

A batch cut where it is cheapest, beside parts of 32 records of similar length; layers below
the adapters remembered, beside computed; frozen linear maps that multiply in bfloat16, beside
float32; epsilon and noise for many silos, beside dp-accounting point by point and each silo by
itself; commands, beside importing torch and transformers; a whole private round beside the usual
loop; a private step on all linear maps beside its limit; and whether bookkeeping grows. Records
have the lengths of SST-2's phrases. ``--before FOLDER`` names another tree of this repository:
the demo's CPU time there is set beside this one's, which takes minutes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from silotune.adapters import AdaptedModel
from silotune.core import Batch, ClientDataset
from silotune.core.half_products import halve
from silotune.engine import evaluate
from silotune.engine.batches import microbatches, pass_tokens
from silotune.engine.remembered import Remembered, in_folder, in_memory
from silotune.privacy import ClientMechanism, NoPrivacy

from . import around_privacy as privacy
from . import around_steps as steps
from .around_steps import OBJECTIVE
from .measure import Clock, Ratio, arguments, clock_for, in_turns, ratio
from .peers import Case, adapted_model, mechanism, model_folder, open_model
from .records import draw, silos
from .sides import MICRO_BATCH

BATCHES = (64, 200)
SCORED = 872  # SST-2's development set


@dataclass(frozen=True)
class Setting:
    """How much is measured.

    Attributes:
        folder: of the model.
        batches: sizes.
        repetitions: of every run.
        scored: records.
        clock: gives seconds.
    """

    folder: str
    batches: Sequence[int]
    repetitions: int
    scored: int
    clock: Clock

    def ratio(self, before: Callable[[], object], after: Callable[[], object]) -> Ratio:
        """How many times ``after`` fits into ``before``."""
        seconds = in_turns({"before": before, "after": after}, self.repetitions, self.clock)
        return ratio(seconds["before"], seconds["after"])


def main() -> None:
    """Time every cure."""
    parser = arguments("What the time around a step comes to.")
    parser.add_argument("--before", type=Path, help="another tree, whose demo is run as well")
    options = parser.parse_args()
    clock = clock_for(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(Path(scratch), quick=options.quick)
        quick = Setting(folder, (16,), 3, 40, clock)
        setting = quick if options.quick else Setting(folder, BATCHES, 5, SCORED, clock)
        tables = {
            "A private step, parts of 32 over the cheapest cut": cut(setting),
            "Layers below the adapters, computed over remembered": remembered(setting, scratch),
            "Frozen maps, float32 over bfloat16": products(setting),
            "A private round, the usual loop over ours": steps.whole_round(
                folder, Path(scratch), setting.batches[-1], setting.repetitions, clock
            ),
            "A private step on all linear maps, its limit over it": steps.all_linear(
                folder,
                ((8, 8),) if options.quick else ((32, 32), (32, 128)),
                setting.repetitions,
                clock,
            ),
            **privacy.tables(setting.repetitions, clock, None if options.quick else folder),
        }
        if options.before:
            tables["The demo's CPU time, that tree over this"] = privacy.demo(options.before)
    seconds = {
        **privacy.seconds_for(20 if options.quick else 1000, clock),
        "bookkeeping, last rounds over first": steps.books(
            *((60, 10) if options.quick else (1000, 100)), clock
        ),
    }
    privacy.show(tables, seconds, options.threads)


def cut(setting: Setting) -> dict[str, Ratio]:
    """Private steps of each batch size, cutting included."""
    found = {}
    for size in setting.batches:
        case = Case(model=setting.folder, batch_size=size)
        adapted, examples = adapted_model(case), _records(case)
        batches = draw(examples, size, 2, seed=size).batches
        before = _steps(case, adapted, examples, batches, _parts)
        found[f"batch {size}"] = setting.ratio(before, _steps(case, adapted, examples, batches))
    return found


def remembered(setting: Setting, scratch: str) -> dict[str, Ratio]:
    """Scoring and private steps with the upper half of the layers, or the last, adapted.

    The memory is filled before the clock runs; all records are hits.
    """
    found = {}
    size = setting.batches[-1]
    depth = open_model(Case(model=setting.folder))[0].model.config.num_hidden_layers  # type: ignore[union-attr]
    for name, layers in (
        ("upper half", tuple(range(depth // 2, depth))),
        ("last layer", (depth - 1,)),
    ):
        case = Case(model=setting.folder, batch_size=size, layers=layers)
        adapted = adapted_model(case)
        plain = First(_records(case), setting.scored)
        rows = [list(range(min(size, setting.scored)))] * 2
        for where, keep in (("memory", in_memory), ("disk", in_folder(Path(scratch)))):
            kept = Remembered(plain, adapted, OBJECTIVE, 64, keep)
            found[f"{name}, {where}, scoring"] = setting.ratio(
                _scoring(adapted, plain), _scoring(adapted, kept)
            )
            found[f"{name}, {where}, private step at batch {len(rows[0])}"] = setting.ratio(
                _steps(case, adapted, plain, rows), _steps(case, adapted, kept, rows)
            )
    return found


def products(setting: Setting) -> dict[str, Ratio]:
    """Scoring, and steps that hide nobody; where single records are hidden they go one by one."""
    size = setting.batches[-1]
    case = Case(model=setting.folder, batch_size=size)
    plain, halved = adapted_model(case), adapted_model(case)
    for name, module in halved.model.named_modules():
        if type(module) is nn.Linear and not name.endswith(".base"):
            halve(module)
    examples = First(_records(case), setting.scored)
    rows = [list(range(min(size, setting.scored)))]
    hidden, open_to_all = mechanism(case, records=size), NoPrivacy(batch_size=size)

    def pair(privacy: ClientMechanism, cuts: Cuts = _cheapest) -> Ratio:
        before = _steps(case, plain, examples, rows, privacy=privacy)
        return setting.ratio(before, _steps(case, halved, examples, rows, cuts, privacy=privacy))

    return {
        "scoring": setting.ratio(_scoring(plain, examples), _scoring(halved, examples)),
        f"step at batch {size}, nobody hidden": pair(open_to_all),
        f"private step at batch {size}, one by one": pair(hidden, _singly),
    }


@dataclass(frozen=True)
class First:
    """The first so many records."""

    examples: ClientDataset
    count: int

    @property
    def lengths(self) -> Sequence[int]:
        """Of these."""
        return self.examples.lengths[: self.count]

    def batch(self, indices: Sequence[int]) -> Batch:
        """As of all."""
        return self.examples.batch(indices)


Cuts = Callable[[Sequence[int], Sequence[int], AdaptedModel], Sequence[Sequence[int]]]


def _records(case: Case) -> ClientDataset:
    [examples] = silos(None, open_model(case)[0], 1)
    return examples


def _parts(rows: Sequence[int], lengths: Sequence[int], _: AdaptedModel) -> list[list[int]]:
    ordered = sorted(rows, key=lambda i: (lengths[i], i))
    return [ordered[i : i + MICRO_BATCH] for i in range(0, len(ordered), MICRO_BATCH)]


def _cheapest(
    rows: Sequence[int], lengths: Sequence[int], adapted: AdaptedModel
) -> list[Sequence[int]]:
    return list(microbatches(rows, lengths, MICRO_BATCH, pass_tokens(adapted)))


def _singly(rows: Sequence[int], _: Sequence[int], __: AdaptedModel) -> list[list[int]]:
    return [[i] for i in rows]


def _steps(
    case: Case,
    adapted: AdaptedModel,
    examples: ClientDataset,
    batches: Sequence[Sequence[int]],
    cuts: Cuts = _cheapest,
    privacy: ClientMechanism | None = None,
) -> Callable[[], None]:
    """Steps on batches that were drawn before; private ones, unless another mechanism is given."""
    privacy = privacy or mechanism(case, records=len(examples.lengths))
    trained = {key: p for key, p in adapted.tensors.items() if p.requires_grad}

    def run() -> None:
        adapted.model.train()
        draws = privacy.draws(0, None)
        for rows in batches:
            ready = (examples.batch(part) for part in cuts(rows, examples.lengths, adapted))
            privacy.gradients(
                trained,
                adapted.sink,
                lambda batch: adapted.losses(OBJECTIVE.losses, batch),
                ready,
                draws,
            )

    return run


def _scoring(adapted: AdaptedModel, examples: ClientDataset) -> Callable[[], Mapping[str, float]]:
    factors = adapted.extract()
    return lambda: evaluate(adapted, OBJECTIVE, factors, examples).metrics()


if __name__ == "__main__":
    main()
