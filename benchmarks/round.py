"""What does a whole federated round cost beside the usual loop, and what the engine by itself?

``python -m benchmarks.round [--quick] [--threads N] [--data FOLDER]``

Rounds of private FFA-LoRA on MiniLM's queries and values, 200 records in a batch on average. The
usual loop is PEFT with Opacus' hooks, each batch padded to its longest record.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from silotune.adapters import AdaptedModel

from .measure import (
    Clock,
    Ratio,
    arguments,
    clock_for,
    frugal_allocator,
    in_child,
    in_turns,
    print_json,
    print_table,
    ratio,
)
from .noop import FLOATS, job_peak, run_job
from .peers import Case, adapted_model, mechanism, model_folder, open_model
from .records import Drawn, draw, silos
from .sides import MICRO_BATCH, Replay, bare_steps, our_rounds, usual_round


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much to do.

    Attributes:
        batch_size: records of a step, on average.
        clients: of the round beside the usual loop; at most three.
        steps: local steps of each of them.
        rounds: repetitions.
        steps_alone: local steps of the one client whose round is set beside the bare steps.
        rounds_alone: repetitions.
        crowd: clients of the smaller and of the larger no-op round.
    """

    batch_size: int
    clients: int
    steps: int
    rounds: int
    steps_alone: int
    rounds_alone: int
    crowd: tuple[int, int]


FULL = Size(
    batch_size=200,
    clients=3,
    steps=2,
    rounds=4,
    steps_alone=10,
    rounds_alone=4,
    crowd=(10, 1000),
)
QUICK = Size(
    batch_size=32,
    clients=2,
    steps=1,
    rounds=3,
    steps_alone=2,
    rounds_alone=3,
    crowd=(10, 100),
)


def main() -> None:
    """Four measurements."""
    parser = arguments("A federated round beside the usual loop, and the engine's own cost.")
    parser.add_argument("--data", type=Path, help="SST-2 (default: random texts as long as its)")
    options = parser.parse_args()
    clock = clock_for(options.threads)
    size = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = model_folder(scratch, quick=options.quick)
        case = Case(model=folder, batch_size=size.batch_size)
        examples = silos(options.data, open_model(case)[0], size.clients)
        many = [draw(e, size.batch_size, size.steps, i) for i, e in enumerate(examples)]
        one = draw(examples[0], size.batch_size, size.steps_alone, len(many))
        adapted = adapted_model(case)
        speed = beside_usual_loop(case, adapted, many, scratch / "many", size.rounds, clock)
        longer, outside = beside_bare_steps(
            case, adapted, one, scratch / "one", size.rounds_alone, clock
        )
    print_json(
        benchmark="round",
        threads=options.threads,
        speed_to_usual_loop=speed.to_json(),
        time_to_bare_steps=longer.to_json(),
        time_outside_gradients_percent=round(100 * outside, 2),
        no_op_seconds=round(no_op_seconds(), 3),
        **crowd_memory(*size.crowd),
    )


def beside_usual_loop(
    case: Case,
    adapted: AdaptedModel,
    many: Sequence[Drawn],
    home: Path,
    times: int,
    clock: Clock,
    ours: Sequence[Drawn] | None = None,
) -> Ratio:
    """How many times faster a round is than the usual loop.

    Args:
        case: what is trained.
        adapted: our model.
        many: each silo's records and batches.
        home: a folder for the silos.
        times: repetitions.
        clock: gives seconds.
        ours: the same records and batches as our side has them; None = alike.
    """
    own = ours or many
    rounds = our_rounds(case, adapted, [(d, _replay(case, d, clock)) for d in own], home)
    runs = {"usual loop": usual_round(case, many), "silotune": lambda: next(rounds)}
    seconds = in_turns(runs, times, clock)
    speed = {name: ratio(seconds["usual loop"], s) for name, s in seconds.items()}
    records = sum(len(rows) for silo in many for rows in silo.batches)
    cells = {
        "usual loop": sum(silo.cells() for silo in many),
        "silotune": sum(silo.cells(MICRO_BATCH) for silo in many),
    }
    rows = [
        [name, f"{median(s):.2f}", f"{records / median(s):.1f}", f"{cells[name]}", str(speed[name])]
        for name, s in seconds.items()
    ]
    title = f"A round of {len(many)} clients, {len(many[0].batches)} steps each"
    header = ["", "s", "samples/s", "tokens with padding", "speed to usual loop (quartiles)"]
    print_table(title, header, rows)
    return speed["silotune"]


def beside_bare_steps(
    case: Case, adapted: AdaptedModel, one: Drawn, home: Path, times: int, clock: Clock
) -> tuple[Ratio, float]:
    """How many times longer a round takes than its gradients and steps alone.

    Returns:
        The ratio, and, steadier on a busy machine, the time that the very same rounds spent
        outside their gradients over the time inside.
    """
    replay = _replay(case, one, clock)
    ours = our_rounds(case, adapted, [(one, replay)], home)
    runs = {"bare steps": bare_steps(case, adapted, one), "round": lambda: next(ours)}
    seconds = in_turns(runs, times, clock)
    longer = {name: ratio(s, seconds["bare steps"]) for name, s in seconds.items()}
    inside = sum(replay.spent[-times * len(one.batches) :])  # without the warm-up
    outside = sum(seconds["round"]) / inside - 1.0
    rows = [[name, f"{median(s):.3f}", str(longer[name])] for name, s in seconds.items()]
    rows.append(["outside gradients", f"{outside * inside / times:.3f}", f"{outside:.2%}"])
    title = f"A round of one client, {len(one.batches)} steps"
    print_table(title, ["", "s", "time to bare steps (quartiles)"], rows)
    return longer["round"], outside


def no_op_seconds(clients: int = 10, rounds: int = 5) -> float:
    """Wall-clock seconds of a whole job that trains next to nothing."""
    _, *seconds = (_seconds(lambda: run_job(clients, rounds)) for _ in range(4))
    title = f"A no-op job of {clients} clients, {rounds} rounds, {FLOATS} floats"
    print_table(title, ["", "s"], [["silotune", f"{median(seconds):.3f}"]])
    return median(seconds)


def crowd_memory(few: int, many: int) -> dict[str, float]:
    """What more clients cost in memory."""
    with frugal_allocator():
        peaks = {n: in_child(job_peak, n) for n in (few, many)}
    rows = [
        [f"{n} clients", f"{p.step / 2**20:.1f}", f"{p.most / 2**20:.1f}"] for n, p in peaks.items()
    ]
    print_table("Peak memory of a no-op round", ["", "MiB", "whole process, MiB"], rows)
    growth = (peaks[many].step - peaks[few].step) / (many - few)
    return {
        "memory_of_more_clients": round(peaks[many].most / peaks[few].most, 4),
        "memory_kib_per_client": round(growth / 2**10, 2),
    }


def _replay(case: Case, drawn: Drawn, clock: Clock) -> Replay:
    return Replay(mechanism(case, drawn.records), drawn.batches, clock)


def _seconds(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start


if __name__ == "__main__":
    main()
