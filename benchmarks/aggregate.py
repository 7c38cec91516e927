"""What does the server's half of a round cost, rule by rule, and beside the usual dense way?

``python -m benchmarks.aggregate [--quick] [--threads N]``

FlexLoRA's cut of the exact mean to one pair beside the dense product and its SVD; LoRA-FAIR's
minimiser, and its closed form for the squared error, beside 1000 dense SGD steps on the paper's
objective; then every rule on all sites of RoBERTa and of Llama 7B. Peers get what they need ready
made, and compute in float32, we in float64. The cost of a rule does not depend on the values, so
clients are random around a common pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from silotune.aggregation import (
    Aggregator,
    FairCosine,
    FairRidge,
    Fold,
    Mean,
    Refactor,
    Residual,
    ServerAdam,
    ServerOptimizer,
    Truncate,
    aggregation_error,
)
from silotune.core import ClientMean, Factors, GlobalState, Key, Role, Statistics
from silotune.linalg import inner, norm, subtract

from .measure import (
    Clock,
    T,
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

RANK, CLIENTS, LAMBDA, RIDGE, STEPS = 8, 20, 0.01, 0.01, 1000
MIB = 2**20
SITE = "site 0"


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured.

    Attributes:
        width: of the square matrix that the dense ways are compared on.
        cases: ranks and numbers of clients there.
        small: widths where the dense SVD can take its turn.
        models: width and number of sites (queries and values of all layers).
        repetitions: of what is quick.
    """

    width: int
    cases: tuple[tuple[int, int], ...]
    small: tuple[int, ...]
    models: Mapping[str, tuple[int, int]]
    repetitions: int


FULL = Extent(
    width=4096,
    cases=tuple((r, k) for r in (8, 16) for k in (2, 5, 20, 50, 100)),
    small=(768, 1024),
    models={"RoBERTa-base": (768, 24), "RoBERTa-large": (1024, 48), "Llama 7B": (4096, 64)},
    repetitions=3,
)
QUICK = Extent(
    width=512,
    cases=((8, 2), (8, 20)),
    small=(256,),
    models={"RoBERTa-base": (768, 2)},
    repetitions=2,
)
RULES: Mapping[str, Aggregator] = {
    "Mean": Mean(),
    "Residual": Residual(),
    f"Residual({RANK})": Residual(rank=RANK),
    "Fold": Fold(),
    "Truncate": Truncate(rank=RANK),
    "FairRidge": FairRidge(),
    "FairCosine": FairCosine(),
    "ServerAdam over Mean": ServerOptimizer(inner=Mean(), step=ServerAdam()),
}


def main() -> None:
    """Three tables and their figures."""
    options = arguments("The server's half of a round, rule by rule.").parse_args()
    clock, extent = clock_for(options.threads), QUICK if options.quick else FULL
    print_json(
        benchmark="aggregate",
        threads=options.threads,
        truncation=truncation(extent, clock) | small_truncations(extent, clock),
        truncation_memory=truncation_memory(extent),
        fair=fair(extent, clock),
        fair_objective=fair_objective(min(extent.width, 768)),
        models={
            name: whole_model(name, width, sites, extent, clock)
            for name, (width, sites) in extent.models.items()
        },
    )


# --- clients --------------------------------------------------------------------------------------


def pair(width: int, rank: int, seed: int) -> Factors:
    """One site's factors, of sizes as they are in training."""
    g = torch.Generator().manual_seed(seed)
    return Factors(
        {
            Key(SITE, Role.A): torch.randn(rank, width, generator=g) / width**0.5,
            Key(SITE, Role.B): torch.randn(width, rank, generator=g) / width,
        }
    )


def client(width: int, rank: int, number: int) -> Factors:
    """A pair that has moved away from the common one by as much as that is."""
    return pair(width, rank, 0).zip(pair(width, rank, 1 + number), lambda x, y: x + y)


def one_site(width: int, rank: int, clients: int) -> tuple[GlobalState, ClientMean]:
    """The state, and the means of so many equal clients."""
    state = GlobalState(round=0, factors=pair(width, rank, 0))
    return state, pooled([client(width, rank, k) for k in range(clients)])


def pooled(updates: list[Factors]) -> ClientMean:
    total: Statistics | None = None
    for update in updates:
        part = Statistics.of(update, 1.0)
        total = part if total is None else total + part
    assert total is not None
    return total.mean()


def dense_mean(updates: list[Factors]) -> Tensor:
    """E[BA] as published code has it: all factors side by side, multiplied out in float32."""
    left = torch.cat([u[Key(SITE, Role.B)] for u in updates], dim=1) / len(updates)
    return left @ torch.cat([u[Key(SITE, Role.A)] for u in updates])


# --- FlexLoRA -------------------------------------------------------------------------------------


def dense_truncation(updates: list[Factors], rank: int) -> tuple[Tensor, Tensor]:
    u, s, vh = torch.linalg.svd(dense_mean(updates), full_matrices=False)
    return u[:, :rank] * s[:rank], vh[:rank]


def truncation(extent: Extent, clock: Clock) -> dict[str, Any]:
    """Ours for every case; the dense SVD once, since its cost knows nothing of rank and clients."""
    width = extent.width
    updates = [client(width, RANK, k) for k in range(CLIENTS)]
    seconds, (b, a) = timed(partial(dense_truncation, updates, RANK), clock)
    state, mean = one_site(width, RANK, CLIENTS)
    ours = Truncate(rank=RANK).combine(state, mean).factors.pair(SITE)
    agreement = float(torch.linalg.norm(ours.dense() - b @ a) / torch.linalg.norm(b @ a))
    figures, rows = {}, []
    for rank, clients in extent.cases:
        state, mean = one_site(width, rank, clients)
        run = partial(Truncate(rank=rank).combine, state, mean)
        own = median(in_turns({"": run}, extent.repetitions, clock)[""])
        figures[f"{width} r={rank} K={clients}"] = {
            "seconds": round(own, 4),
            "times_faster": round(seconds / own, 1),
        }
        rows.append([f"r = {rank}, {clients} clients", f"{1e3 * own:.0f}", f"{seconds / own:.0f}"])
    print_table(
        f"FlexLoRA on {width} x {width}: dense product and SVD {seconds:.1f} s (run once, at r = "
        f"{RANK}, {CLIENTS} clients; the results agree to {agreement:.0e})",
        ["", "ms", "times faster"],
        rows,
    )
    return {"dense_seconds": round(seconds, 2), "agreement": agreement, **figures}


def small_truncations(extent: Extent, clock: Clock) -> dict[str, Any]:
    """In turn with the dense SVD, where that takes no minute."""
    figures, rows = {}, []
    for width in extent.small:
        updates = [client(width, RANK, k) for k in range(CLIENTS)]
        state, mean = one_site(width, RANK, CLIENTS)
        runs: dict[str, Callable[[], object]] = {
            "ours": partial(Truncate(rank=RANK).combine, state, mean),
            "dense": partial(dense_truncation, updates, RANK),
        }
        seconds = in_turns(runs, extent.repetitions, clock)
        faster = ratio(seconds["dense"], seconds["ours"])
        figures[f"{width} r={RANK} K={CLIENTS}"] = {"times_faster": faster.to_json()}
        medians = [f"{1e3 * median(seconds[name]):.1f}" for name in runs]
        rows.append([f"{width} x {width}", *medians, f"{faster.median:.1f}"])
    title = f"FlexLoRA, r = {RANK}, {CLIENTS} clients, in turn with the dense way"
    print_table(title, ["", "ms", "dense ms", "times faster"], rows)
    return figures


def truncation_memory(extent: Extent) -> dict[str, Any]:
    """Peaks in fresh processes, beside (out + in) R numbers of 8 bytes and the dense matrix."""
    width = extent.width
    figures, rows = {}, []
    with frugal_allocator():
        for rank, clients in extent.cases:
            most = in_child(truncation_peak, width, rank, clients)
            stack = 8 * 2 * width * rank * clients
            figures[f"{width} r={rank} K={clients}"] = {
                "mib": round(most / MIB, 1),
                "times_the_stack": round(most / stack, 2),
            }
            rows.append(
                [
                    f"r = {rank}, {clients} clients",
                    f"{most / MIB:.0f}",
                    f"{stack / MIB:.0f}",
                    f"{most / stack:.1f}",
                    f"{4 * width**2 / MIB:.0f}",
                ]
            )
    print_table(
        f"FlexLoRA on {width} x {width}: peak memory, MiB",
        ["", "peak", "(out + in) R", "ratio", "one dense float32 matrix"],
        rows,
    )
    return figures


def truncation_peak(width: int, rank: int, clients: int) -> int:
    torch.set_num_threads(1)
    warm_state, warm_mean = one_site(64, rank, 2)
    Truncate(rank=rank).combine(warm_state, warm_mean)
    state, mean = one_site(width, rank, clients)
    return peak(partial(Truncate(rank=rank).combine, state, mean)).step


# --- LoRA-FAIR ------------------------------------------------------------------------------------


def dense_descent(ideal: Tensor, b: Tensor, a: Tensor, steps: int) -> Tensor:
    """SGD as re-implementations have it: squared norm, zero start, autograd, float32."""
    d = torch.zeros_like(b, requires_grad=True)
    sgd = torch.optim.SGD([d], lr=0.01)
    for _ in range(steps):
        sgd.zero_grad()
        cosine = F.cosine_similarity(((b + d) @ a).flatten(), ideal.flatten(), dim=0)
        (1.0 - cosine + LAMBDA * d.square().sum()).backward()
        sgd.step()
    return (b + d).detach()


def fair(extent: Extent, clock: Clock) -> dict[str, Any]:
    """Closed form, the minimiser, and dense steps (a few of them, multiplied)."""
    width, few = extent.width, 20
    updates = [client(width, RANK, k) for k in range(CLIENTS)]
    state, mean = one_site(width, RANK, CLIENTS)
    means = mean.first.map(torch.Tensor.float).pair(SITE)
    ideal = dense_mean(updates)
    runs: dict[str, Callable[[], object]] = {
        "closed form": partial(FairRidge(ridge=RIDGE).combine, state, mean),
        "minimiser": partial(FairCosine(strength=LAMBDA, squared=True).combine, state, mean),
        f"{few} dense steps": partial(dense_descent, ideal, means.left, means.right, few),
        "dense target": partial(dense_mean, updates),
    }
    seconds = {n: median(s) for n, s in in_turns(runs, extent.repetitions, clock).items()}
    dense = seconds["dense target"] + STEPS / few * seconds[f"{few} dense steps"]
    rows = [[name, f"{1e3 * s:.1f}", f"{dense / s:.0f}"] for name, s in list(seconds.items())[:2]]
    rows.append(
        [f"{STEPS} dense steps (estimated: {few} x {STEPS // few})", f"{1e3 * dense:.0f}", "1"]
    )
    title = f"LoRA-FAIR on {width} x {width}, r = {RANK}, {CLIENTS} clients"
    print_table(title, ["", "ms", "times faster"], rows)
    return {
        "dense_seconds_estimated": round(dense, 2),
        "closed_form_times_faster": round(dense / seconds["closed form"], 1),
        "minimiser_times_faster": round(dense / seconds["minimiser"], 1),
    }


def fair_objective(width: int) -> dict[str, Any]:
    """Where each ends, after all dense steps have really been taken."""
    state, mean = one_site(width, RANK, CLIENTS)
    means = mean.first.map(torch.Tensor.float).pair(SITE)
    ideal = dense_mean([client(width, RANK, k) for k in range(CLIENTS)])
    ends = {
        "mean": means.left,
        f"{STEPS} dense steps": dense_descent(ideal, means.left, means.right, STEPS),
    }
    rules: Mapping[str, Aggregator] = {
        "minimiser": FairCosine(strength=LAMBDA, squared=True),
        f"closed form, ridge {RIDGE}": FairRidge(ridge=RIDGE),
        "closed form, ridge 0": FairRidge(ridge=0.0),
    }
    for name, rule in rules.items():
        ends[name] = rule.combine(state, mean).factors[Key(SITE, Role.B)]
    figures = {name: objectives(mean, b) for name, b in ends.items()}
    print_table(
        f"LoRA-FAIR on {width} x {width}: where each ends (relative error: of B'A' from E[BA])",
        ["", "1 - cosine", "its objective", "relative error", "|D| / |E[B]|"],
        [[name, *(f"{x:.6f}" for x in values.values())] for name, values in figures.items()],
    )
    return figures


def objectives(mean: ClientMean, b: Tensor) -> dict[str, float]:
    first = mean.first.pair(SITE)
    ideal = mean.product[SITE]
    product = mean.first.updated({Key(SITE, Role.B): b.double()}).pair(SITE)
    cosine = float(inner(product, ideal) / norm(product) / norm(ideal))
    moved = float(torch.linalg.norm(b - first.left))
    return {
        "one_minus_cosine": 1.0 - cosine,
        "objective": 1.0 - cosine + LAMBDA * moved**2,
        "relative_error": float(norm(subtract(ideal, product)) / norm(ideal)),
        "moved": moved / float(torch.linalg.norm(first.left)),
    }


# --- whole models ---------------------------------------------------------------------------------


def whole_model(name: str, width: int, sites: int, extent: Extent, clock: Clock) -> dict[str, Any]:
    """Seconds of every rule on queries and values of all layers."""

    def everywhere(factors: Factors) -> Factors:
        return Factors(
            {Key(f"site {n}", k.role): t for n in range(sites) for k, t in factors.items()}
        )

    state = GlobalState(round=0, factors=everywhere(pair(width, RANK, 0)))
    updates = [everywhere(client(width, RANK, k)) for k in range(CLIENTS)]
    pooling, mean = timed(partial(pooled, updates), clock)
    only_b = pooled([u.only({Role.B}) for u in updates])
    figures, rows = {"pooling": round(pooling, 3)}, [["pooling both factors", f"{pooling:.2f}", ""]]
    repetitions = 1 if width > 1024 else extent.repetitions
    for rule_name, rule in {**RULES, "Refactor": Refactor()}.items():
        means = only_b if rule_name == "Refactor" else mean
        times = [timed(partial(rule.combine, state, means), clock) for _ in range(repetitions)]
        error, _ = timed(partial(aggregation_error, means, state.factors, times[0][1]), clock)
        own = median(seconds for seconds, _ in times)
        figures[rule_name] = round(own, 3)
        rows.append([rule_name, f"{own:.2f}", f"{error:.2f}"])
    title = f"{name}: {sites} sites {width} x {width}, r = {RANK}, {CLIENTS} clients"
    runs = "run once" if repetitions == 1 else f"median of {repetitions}"
    print_table(f"{title}; seconds ({runs})", ["", "rule", "its error"], rows)
    return figures


def timed(run: Callable[[], T], clock: Clock) -> tuple[float, T]:
    start = clock()
    result = run()
    return clock() - start, result


if __name__ == "__main__":
    main()
