"""What does a local method's step cost beside AdamW's on the same pairs?

``python -m benchmarks.local [--quick] [--threads N]``

Queries and values of MiniLM at rank 8, the head frozen, records without padding: a whole step
(forward, backward, optimiser), the optimiser's part of it, and the bytes that it keeps between
steps. Everything is measured over two steps, since some methods train one factor in a step and the
other in the next.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from silotune.adapters import Expert, initial_factors, inject
from silotune.core import Batch, Factors, Key, Site, generator
from silotune.methods import MoLE, built_in
from silotune.models.heads import random_head
from silotune.objectives import SequenceClassification
from silotune.optim import AdamW
from silotune.privacy import NoPrivacy

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
from .peers import LORA, Case, model_folder, open_model, random_batch
from .private_step import Shape

FULL: Mapping[Shape, int] = {(32, 32): 8, (32, 128): 4}  # to repetitions
QUICK: Mapping[Shape, int] = {(8, 32): 3}
STEPS = 2
ALONE = 5  # times the optimiser's steps, which are too short to measure once
REFERENCE = "AdamW"
GOAL = ("LoRA-RITE", "LoRA-Pro")  # their whole step in at most 1.15 of the reference's

METHODS: Mapping[str, tuple[str, dict[str, object]]] = {
    REFERENCE: ("fedit", {}),
    "LoRA+": ("lora-plus", {}),
    "LoRA-RITE": ("lora-rite", {}),
    "LoRA-RITE, escape": ("lora-rite", {"escape": True}),
    "LoRA-Pro": ("lora-pro", {}),
    "LoRA-Pro, full": ("lora-pro", {"full_moments": True}),
    "AltLoRA+": ("alt-lora", {}),
    "AdamW, A frozen": ("ffa-lora", {}),
    "LoRA-FA": ("lora-fa", {}),
    "GaLore": ("fedftg", {}),
    "XGBLoRA": ("xgblora", {}),
    "DoRA": ("dora", {}),
    "ResLoRA, block": ("reslora", {}),
    "ResLoRA, input": ("reslora", {"shortcut": "input"}),
    "ResLoRA, middle": ("reslora", {"shortcut": "middle"}),
    "MiLoRA": ("milora", {}),
    "MoLE, 3 experts": ("mole", {}),
}
"""Name in the tables -> method and its options. COLA has the steps of AdamW, RAC-LoRA those with A
frozen; AltLoRA those of AltLoRA+, without second moments."""

EXPERTS = 3


@dataclass(frozen=True, eq=False)
class Local:
    """One method, ready to train.

    Attributes:
        step: a whole one, for the number of the step and a batch.
        optimizer: its last part; it finds the gradients of the last whole step.
        tensors: all of the model's.
    """

    step: Callable[[int, Batch], None]
    optimizer: torch.optim.Optimizer
    tensors: Mapping[Key, nn.Parameter]


def main() -> None:
    """Time every method in turn with the reference, for every shape."""
    options = arguments("Steps of local methods beside AdamW's.").parse_args()
    clock = clock_for(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(Path(scratch), quick=options.quick)
        methods = {name: local(folder, *choice) for name, choice in METHODS.items()}
        whole: dict[str, dict[str, Ratio]] = {}
        for shape, repetitions in (QUICK if options.quick else FULL).items():
            runs = {n: partial(steps, m, random_batch(*shape)) for n, m in methods.items()}
            title = f"whole step, {shape[0]}x{shape[1]}"
            whole[title] = timed(title, runs, repetitions, clock, STEPS)
        repetitions = 3 if options.quick else 20
        runs = {n: alone(m, random_batch(8, 32)) for n, m in methods.items()}
        title = "optimiser alone"
        optimisers = timed(title, runs, repetitions, clock, STEPS * ALONE)
        state = {name: bytes_kept(m.optimizer) for name, m in methods.items()}
    rows = [[name, str(b), f"{b / state[REFERENCE]:.3f}"] for name, b in state.items()]
    print_table("kept between steps", ["", "bytes", f"to {REFERENCE}"], rows)
    print_json(
        benchmark="local",
        threads=options.threads,
        whole_step={t: {name: r.to_json() for name, r in row.items()} for t, row in whole.items()},
        optimiser={name: r.to_json() for name, r in optimisers.items()},
        state_bytes=state,
        highest_whole_step={
            name: round(max(row[name].median for row in whole.values()), 4) for name in GOAL
        },
    )


def local(folder: str, method: str, options: Mapping[str, object]) -> Local:
    """A method on the model in ``folder``, with B that is small and not 0."""
    adamw = AdamW(lr=1e-4)
    loaded, sites = open_model(Case(model=folder))
    chosen = built_in()[method](r=LORA.rank, lora_alpha=LORA.alpha, **options)
    if isinstance(chosen, MoLE):
        chosen = chosen.over([expert(i, sites) for i in range(EXPERTS)])
    axes = chosen.axes(adamw, head=False)
    factors = nonzero(initial_factors(sites, axes.adapter, seed=0)).updated(
        random_head(loaded.heads, 0)
    )
    adapted = inject(loaded.model, sites, loaded.heads, axes.adapter)
    adapted.load(factors)
    adapted.model.train()
    plan = axes.schedule.plan(0, [site.name for site in sites])
    phases = [phase for phase in plan.phases for _ in range(phase.steps)]
    optimizer = axes.optimizer.build(adapted.tensors, adamw.lr)
    objective, privacy = (
        SequenceClassification(text="text", label="label"),
        NoPrivacy(batch_size=32),
    )
    draws = privacy.draws(0, None)

    def losses(batch: Batch) -> Tensor:
        return adapted.losses(objective.losses, batch)

    def step(number: int, batch: Batch) -> None:
        optimizer.zero_grad()
        active = adapted.train_only(phases[number % len(phases)].roles, plan.fixed)
        privacy.gradients(active, adapted.sink, losses, [batch], draws)
        optimizer.step()

    return Local(step, optimizer, adapted.tensors)


def expert(number: int, sites: Sequence[Site]) -> Expert:
    """Random pairs, as if trained."""
    born = nonzero(initial_factors(sites, LORA, seed=number))
    return Expert(str(number), {site.name: born.pair(site.name) for site in sites})


def nonzero(born: Factors) -> Factors:
    """Small random numbers where all are 0."""
    return Factors(
        {
            k: t if t.any() else torch.randn(t.shape, generator=generator("start", k)) * 0.02
            for k, t in born.items()
        }
    )


def steps(method: Local, batch: Batch) -> None:
    """Two whole ones."""
    for number in range(STEPS):
        method.step(number, batch)


def alone(method: Local, batch: Batch) -> Callable[[], None]:
    """The optimiser's part of them, some times over, with gradients that are ready."""
    ready = []
    for number in range(STEPS):
        method.step(number, batch)
        ready.append({k: p.grad for k, p in method.tensors.items()})

    def run() -> None:
        for gradients in ready * ALONE:
            for key, p in method.tensors.items():
                p.grad = gradients[key]
            method.optimizer.step()

    return run


def timed(
    title: str,
    runs: Mapping[str, Callable[[], object]],
    repetitions: int,
    clock: Clock,
    steps_each: int,
) -> dict[str, Ratio]:
    """Time by that of the reference; prints a table."""
    seconds = in_turns(runs, repetitions, clock)
    ratios = {name: ratio(s, seconds[REFERENCE]) for name, s in seconds.items()}
    rows = [
        [name, f"{1e3 * median(s) / steps_each:.3f}", str(ratios[name])]
        for name, s in seconds.items()
    ]
    print_table(title, ["", "ms a step", f"to {REFERENCE} (quartiles)"], rows)
    return ratios


def bytes_kept(optimizer: torch.optim.Optimizer) -> int:
    """Of all tensors in an optimiser's state."""
    return _bytes(optimizer.state)


def _bytes(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    return sum(map(_bytes, state.values())) if isinstance(state, Mapping) else 0


if __name__ == "__main__":
    main()
