"""What does a private training step cost, in time and in memory, beside PEFT without privacy?

``python -m benchmarks.private_step [--quick] [--threads N]``
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import torch

from .measure import (
    Clock,
    Peak,
    Ratio,
    arguments,
    clock_for,
    frugal_allocator,
    in_child,
    in_turns,
    peak,
    print_json,
    print_table,
    ratio,
)
from .peers import KINDS, PEERS, TARGETS, Case, check_agreement, model_folder, random_batch

Shape = tuple[int, int]  # records, tokens

FULL: Mapping[Shape, int] = {(32, 32): 8, (32, 128): 4}  # to repetitions
QUICK: Mapping[Shape, int] = {(8, 32): 3}
REFERENCE = "PEFT"


def main() -> None:
    """Time every case, then measure the memory of each in processes of its own."""
    options = arguments("A private training step beside PEFT's and Opacus'.").parse_args()
    clock = clock_for(options.threads)
    shapes = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(Path(scratch), quick=options.quick)
        cases = [
            Case(model=folder, targets=targets, kind=kind, batch_size=max(shapes)[0])
            for targets, kind in product(TARGETS, KINDS)
        ]
        speed: dict[str, dict[str, Ratio]] = {}
        for case in cases:
            check_agreement(case, random_batch(4, 8))
            speed |= speed_of(case, shapes, clock)
        memory: dict[str, dict[str, float]] = {}
        for case in cases[:1] if options.quick else cases:
            memory |= memory_of(case, max(shapes), options.threads)
    print_json(
        benchmark="private_step",
        threads=options.threads,
        speed={name: {k: r.to_json() for k, r in row.items()} for name, row in speed.items()},
        memory=memory,
        lowest_speed_of_ours_private={
            targets: round(lowest(speed, targets), 4) for targets in TARGETS
        },
        highest_memory_of_ours_private=max(row["ours private"] for row in memory.values()),
    )


def speed_of(case: Case, shapes: Mapping[Shape, int], clock: Clock) -> dict[str, dict[str, Ratio]]:
    """Speed of every peer relative to PEFT, by shape; prints a table for each."""
    peers = {name: build(case) for name, build in PEERS.items()}
    speed = {}
    for (n, length), repetitions in shapes.items():
        batch = random_batch(n, length)
        runs = {name: partial(peer.step, batch) for name, peer in peers.items()}
        seconds = in_turns(runs, repetitions, clock)
        title = _title(case, (n, length))
        speed[title] = {name: ratio(seconds[REFERENCE], s) for name, s in seconds.items()}
        rows = [
            [name, f"{1e3 * median(s):.1f}", f"{n / median(s):.1f}", str(speed[title][name])]
            for name, s in seconds.items()
        ]
        print_table(title, ["step of", "ms", "samples/s", "speed to PEFT (quartiles)"], rows)
    return speed


def memory_of(case: Case, shape: Shape, threads: int) -> dict[str, dict[str, float]]:
    """Peak memory of one step of every peer relative to PEFT's; prints a table."""
    with frugal_allocator():
        peaks = {name: in_child(step_peak, name, case, shape, threads) for name in PEERS}
    base = peaks[REFERENCE].step
    title = _title(case, shape)
    rows = [
        [name, f"{p.step / 2**20:.1f}", f"{p.step / base:.3f}", f"{p.most / 2**20:.0f}"]
        for name, p in peaks.items()
    ]
    print_table(title, ["peak of a step of", "MiB", "to PEFT", "whole process, MiB"], rows)
    return {title: {name: round(p.step / base, 4) for name, p in peaks.items()}}


def step_peak(name: str, case: Case, shape: Shape, threads: int) -> Peak:
    """One step of one peer in this process, after a small one that loads what is loaded late."""
    torch.set_num_threads(threads)
    peer = PEERS[name](case)
    peer.step(random_batch(2, 8))
    batch = random_batch(*shape)
    return peak(lambda: peer.step(batch))


def lowest(speed: Mapping[str, Mapping[str, Ratio]], targets: str) -> float:
    """Our private step's lowest median over the cases with these targets."""
    medians = [row["ours private"].median for name, row in speed.items() if targets in name]
    return min(medians)


def _title(case: Case, shape: Shape) -> str:
    return f"{case.kind} {case.targets} {shape[0]}x{shape[1]}"


if __name__ == "__main__":
    main()
