"""What does each rule do to the noise of local privacy on its way into B A?

``python -m benchmarks.noise_through [--quick]``

K clients return the same true factors, each with independent Gaussian noise on what its method
trains. What then stands beside the true product, its energy over the numbers of the matrix, is
measured for a small and a large noise s, and for K and 4 K clients. Energy that grows by 4 when s
doubles is linear noise, by 16 quadratic; energy that falls by 4 when K grows by 4 is averaged once,
by 16 twice (noise of B averaged, and noise of A). Theory: noise times noise has energy s^4 r per
number of the matrix and client: over K where products are averaged, over K^2 where factors are.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import torch

from silotune.aggregation import Aggregator
from silotune.core import Factors, GlobalState, Key, Role, Statistics
from silotune.linalg import LowRank, Matrix, dense, subtract
from silotune.methods import Axes, built_in
from silotune.optim import SGD

from .measure import arguments, print_json, print_table

OUT, IN, RANK, CLIENTS = 96, 64, 4, 4
SMALL, LARGE = 0.02, 16.0
"""Noise of each number; those of the true factors have size 1."""

METHODS: Mapping[str, Mapping[str, object]] = {
    "ffa-lora": {},
    "rolora": {},
    "fedsvd": {},
    "fedftg-seeded": {},
    "fedit": {},
    "lora-fair": {},
    "lora-fair (ridge)": {"objective": "ridge"},
    "flexlora": {},
    "fedex-lora": {},
    "fedex-lora (rank r)": {"residual_rank": RANK},
    "flora": {},
}
A, B = Key("site", Role.A), Key("site", Role.B)


def main() -> None:
    """One table and its figures."""
    options = arguments("Privacy noise through every rule.").parse_args()
    torch.set_num_threads(options.threads)
    trials = 2 if options.quick else 40
    figures = {}
    rows = []
    for name, choices in METHODS.items():
        method = built_in()[name.partition(" ")[0]](r=RANK, **choices)
        axes = method.axes(SGD(lr=1.0), head=False)
        low, high = growth(axes, SMALL, trials), growth(axes, LARGE, trials)
        fewer = energy(axes, LARGE, CLIENTS, trials) / energy(axes, LARGE, 4 * CLIENTS, trials)
        share = energy(axes, LARGE, CLIENTS, trials) / (LARGE**4 * RANK)
        figures[name] = {
            "small_noise_doubled": round(low, 2),
            "large_noise_doubled": round(high, 2),
            "clients_times_4": round(fewer, 2),
            "noise_times_noise": round(share, 4),
        }
        rows.append([name, f"{low:.1f}", f"{high:.1f}", f"{fewer:.1f}", f"{share:.4f}"])
    print_table(
        f"Noise in B A of {OUT} x {IN}, r = {RANK}, K = {CLIENTS} (1/K = {1 / CLIENTS}, 1/K^2 = "
        f"{1 / CLIENTS**2})",
        [
            "method",
            "energy x, small s doubled",
            "energy x, large s doubled",
            "energy /, 4 K clients",
            "energy at large s, of s^4 r",
        ],
        rows,
    )
    print_json(benchmark="noise_through", trials=trials, methods=figures)


def growth(axes: Axes, s: float, trials: int) -> float:
    """By what the energy grows when the noise doubles."""
    return energy(axes, 2 * s, CLIENTS, trials) / energy(axes, s, CLIENTS, trials)


def energy(axes: Axes, s: float, clients: int, trials: int) -> float:
    """Mean squared entry of what stands beside the true product."""
    return fmean(_once(axes, s, clients, trial) for trial in range(trials))


def _once(axes: Axes, s: float, clients: int, trial: int) -> float:
    g = torch.Generator().manual_seed(trial)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    true = Factors({A: normal(RANK, IN), B: normal(OUT, RANK)})
    plan = axes.schedule.plan(0)
    moving = plan.share & {Role.A, Role.B}
    if axes.adapter is not None and not axes.adapter.whole_pair:
        moving = frozenset({Role.B})  # out > in: the projector is A
    total: Statistics | None = None
    for _ in range(clients):
        sent = true.only(moving).map(lambda t: t + s * normal(*t.shape))
        part = Statistics.of(sent, 1.0)
        total = part if total is None else total + part
    assert total is not None
    return _distance(axes.aggregator, GlobalState(round=0, factors=true), total, true)


def _distance(rule: Aggregator, state: GlobalState, total: Statistics, true: Factors) -> float:
    combined = rule.combine(state, total.mean())
    after: Matrix = state.factors.updated(combined.factors).pair("site")
    if "site" in combined.residual:
        after = dense(after) + dense(combined.residual["site"])
    gap = subtract(after, LowRank(true[B], true[A]))
    return float(dense(gap).square().mean())


if __name__ == "__main__":
    main()
