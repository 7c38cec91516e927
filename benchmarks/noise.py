"""What does a step's noise cost, by itself and as a share of the step it is for?

``python -m benchmarks.noise [--quick] [--threads N]``

As many numbers as FFA-LoRA trains on MiniLM: 36,864 on queries and values, 168,960 on all linear
maps (165,888 without the pooler). ``torch.randn`` is the peer that is fast and not private, Box and
Muller's method on bytes of the operating system the one that is private and usual.

The step with discrete noise is timed whole as well: it also rounds every record to the grid.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from silotune.privacy import Discrete
from silotune.privacy.mechanisms.discrete_gaussian import discrete_gaussian
from silotune.privacy.mechanisms.gaussian import standard_normal
from silotune.privacy.mechanisms.secure_rng import Randomness

from .measure import (
    Clock,
    Ratio,
    arguments,
    clock_for,
    in_turns,
    print_json,
    print_table,
    ratio,
)
from .peers import TARGETS, Case, model_folder, our_private_peer, random_batch
from .private_step import Shape

Draw = Callable[[int], Tensor]

FULL: Mapping[Shape, int] = {(32, 32): 9, (32, 128): 5}  # to repetitions
QUICK: Mapping[Shape, int] = {(32, 32): 3}
STEP = "private step"
DISCRETE_STEP = "private step, discrete noise"
PEER = "torch.randn"
OURS = ("standard_normal", "discrete_gaussian")
STD = 1.41 * 2**20  # grid points; the discrete sampler keeps the fewest candidates here


def main() -> None:
    """Time every draw in turn with the step, for either set of sites."""
    options = arguments("The time of a step's noise, and its share of the step.").parse_args()
    clock = clock_for(options.threads)
    seconds: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(Path(scratch), quick=options.quick)
        for targets in TARGETS:
            case = Case(model=folder, targets=targets)
            seconds |= timed(case, QUICK if options.quick else FULL, clock)
    shares = {title: shares_of(row) for title, row in seconds.items()}
    print_json(
        benchmark="noise",
        threads=options.threads,
        milliseconds={
            title: {name: round(1e3 * median(s), 3) for name, s in row.items()}
            for title, row in seconds.items()
        },
        share_of_step={
            title: {name: r.to_json() for name, r in row.items()} for title, row in shares.items()
        },
        highest_share_of_ours_percent={
            name: round(100 * max(row[name].median for row in shares.values()), 2) for name in OURS
        },
        slowest_discrete_step=max(row[DISCRETE_STEP].median for row in shares.values()),
    )


def timed(
    case: Case, shapes: Mapping[Shape, int], clock: Clock
) -> dict[str, dict[str, list[float]]]:
    """Seconds of every draw and of the step, by shape; prints a table for each.

    The step makes noise of its own, by ``standard_normal``; a share is of the step as a whole.
    """
    peer, discrete = our_private_peer(case), our_private_peer(case, Discrete)
    numbers = sum(tensor.numel() for tensor in peer.tensors.values())
    measured = {}
    for (n, length), repetitions in shapes.items():
        runs: dict[str, Callable[[], object]] = {
            name: partial(draw, numbers) for name, draw in draws().items()
        }
        batch = random_batch(n, length)
        steps = {STEP: partial(peer.step, batch), DISCRETE_STEP: partial(discrete.step, batch)}
        seconds = in_turns(runs | steps, repetitions, clock)
        title = f"{case.kind} {case.targets} {n}x{length}: {numbers} numbers"
        shares = shares_of(seconds)
        rows = [
            [
                name,
                f"{1e3 * median(seconds[name]):.2f}",
                f"{1e9 * median(seconds[name]) / numbers:.1f}",
                f"{median(seconds[name]) / median(seconds[PEER]):.1f}",
                _percent(share),
            ]
            for name, share in shares.items()
        ]
        rows.append([STEP, f"{1e3 * median(seconds[STEP]):.2f}", "", "", ""])
        header = ["", "ms", "ns a number", f"to {PEER}", "% of the step (quartiles)"]
        print_table(title, header, rows)
        measured[title] = seconds
    return measured


def draws() -> Mapping[str, Draw]:
    """Ways to make so many numbers."""
    g = Randomness.secret()
    return {
        PEER: torch.randn,
        "os.urandom, Box-Muller": box_muller,
        "standard_normal": partial(standard_normal, g),
        "discrete_gaussian": lambda n: discrete_gaussian(g, n, STD),
    }


def box_muller(n: int) -> Tensor:
    """Normals, float64, from 53 bits of the operating system each (Box and Muller 1958)."""
    half = (n + 1) // 2
    bits = np.frombuffer(os.urandom(16 * half), dtype=np.uint64) >> np.uint64(11)
    u, v = torch.from_numpy(bits.astype(np.float64)).add_(1.0).mul_(2.0**-53).view(2, half)
    radius, angle = u.log_().mul_(-2.0).sqrt_(), v.mul_(2.0 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()])[:n]


def shares_of(seconds: Mapping[str, list[float]]) -> dict[str, Ratio]:
    """Every draw's time over that of its neighbouring step."""
    return {name: ratio(s, seconds[STEP]) for name, s in seconds.items() if name != STEP}


def _percent(share: Ratio) -> str:
    return f"{100 * share.median:.2f} ({100 * share.low:.2f}-{100 * share.high:.2f})"


if __name__ == "__main__":
    main()
