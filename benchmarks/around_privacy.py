"""What computing epsilon and starting commands comes to: a part of ``benchmarks.around``.

``python -m benchmarks.around_privacy [--quick] [--threads N]`` is that part alone.
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

from silotune.privacy.accounting import accountant, pld, sampled
from silotune.privacy.accounting.accountant import COARSE, FINE, epsilon
from silotune.privacy.accounting.calibration import calibrate
from silotune.privacy.accounting.charges import Charge
from silotune.privacy.accounting.sampled import Target, certified
from silotune.privacy.choice import PrivacyBudget

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

DELTA = 1e-5
CHARGES = (Charge(0.001, 0.5, 1000), Charge(0.01, 1.0, 1000), Charge(0.1, 1.0, 300))

IMPORTS = "import torch; from transformers import PreTrainedModel"


def main() -> None:
    """Time what needs no model."""
    options = arguments("What computing epsilon comes to.").parse_args()
    clock = clock_for(options.threads)
    found = tables(3 if options.quick else 9, clock, None)
    show(found, seconds_for(20 if options.quick else 1000, clock), options.threads)


def tables(repetitions: int, clock: Clock, model: str | None) -> dict[str, dict[str, Ratio]]:
    """By title.

    Args:
        repetitions: of every run.
        clock: gives seconds.
        model: as for ``commands``.
    """
    return {
        "Epsilon, dp-accounting point by point over ours": epsilons(repetitions, clock),
        "Noise, each silo by itself over all": many_silos(40, repetitions, clock),
        "Whether a planned round fits, computed over known": planned_round(repetitions, clock),
        "CPU of a command over importing torch and transformers": commands(model, repetitions),
    }


def show(
    found: Mapping[str, Mapping[str, Ratio]], seconds: Mapping[str, float], threads: int
) -> None:
    """Print all, and one JSON object."""
    for title, ratios in found.items():
        print_table(title, ["", "times"], [[name, str(r)] for name, r in ratios.items()])
    print_table(
        "CPU seconds, and their ratio where it is said",
        ["", ""],
        [[name, str(s)] for name, s in seconds.items()],
    )
    print_json(
        benchmark="around",
        threads=threads,
        seconds=dict(seconds),
        **{title: {n: r.to_json() for n, r in ratios.items()} for title, ratios in found.items()},
    )


def epsilons(repetitions: int, clock: Clock) -> dict[str, Ratio]:
    """The library, point by point as it comes, over ours."""
    found = {}
    for charge in CHARGES:
        for name, grid in (("coarse", COARSE), ("fine", FINE)):
            q, sigma = charge.sampling_rate, charge.noise_multiplier
            step = pld.interval([(charge, 1)], "add-remove", grid)

            def library(
                q: float = q, sigma: float = sigma, step: float = step, n: int = charge.steps
            ) -> float:
                one = from_gaussian_mechanism(
                    sigma, value_discretization_interval=step, sampling_prob=q
                )
                return float(one.self_compose(n).get_epsilon_for_delta(DELTA))

            def ours(charge: Charge = charge, grid: float = grid) -> float:
                _forget()
                return epsilon([charge], DELTA, grid=grid)

            title = f"q {q:g}, sigma {sigma:g}, {charge.steps} steps, {name}"
            found[title] = _ratio(library, ours, repetitions, clock)
    return found


def many_silos(silos: int, repetitions: int, clock: Clock) -> dict[str, Ratio]:
    """Noise for unequal silos of 200 to 20,000 records, each by itself over all together."""
    target = Target(6.0, DELTA, "add-remove", 30, 2**20)

    def each() -> None:
        for rate in _rates(silos):
            _forget()
            calibrate(6.0, DELTA, lambda sigma, rate=rate: target.charge(rate, sigma))  # type: ignore[misc]

    def together() -> None:
        _forget()
        for rate in _rates(silos):
            certified(target, rate)

    return {f"{silos} silos": _ratio(each, together, repetitions, clock)}


def seconds_for(silos: int, clock: Clock) -> dict[str, float]:
    """Of noise for so many unequal silos."""
    found = {}
    for name, target in (
        ("epsilon 6, 30 steps", Target(6.0, 1e-6, "add-remove", 30, 2**20)),
        ("epsilon 1, 300 steps", Target(1.0, 1e-6, "add-remove", 300, 2**20)),
    ):
        _forget()
        start = clock()
        for rate in _rates(silos):
            certified(target, rate)
        found[f"{silos} silos of 200 to 20,000, {name}"] = round(clock() - start, 1)
    return found


def planned_round(repetitions: int, clock: Clock) -> dict[str, Ratio]:
    """Whether a round that was planned fits in a budget, computed over known."""
    whole = Charge(0.05, 1.0, 100)
    budget = PrivacyBudget(epsilon=10.0, delta=DELTA)
    covering = budget.covering([whole])
    paid = [Charge(0.05, 1.0, 90)]

    def ask(budget: PrivacyBudget) -> None:
        accountant._epsilons.cache_clear()
        assert budget.affords(paid)

    return {"one silo": _ratio(lambda: ask(budget), lambda: ask(covering), repetitions, clock)}


def commands(model: str | None, repetitions: int) -> dict[str, Ratio]:
    """CPU time of commands over that of importing torch and transformers.

    Args:
        model: a folder with MiniLM, for those that open one; None leaves them out.
        repetitions: of each.
    """
    asked = {"methods": ["methods"], "doctor": ["doctor"]}
    if model is not None:
        where = f"model.name_or_path={model}"
        asked |= {
            "plan triage": ["plan", "triage", where],
            "data triage": ["data", "triage", where],
        }
    return {
        name: _ratio(
            _child("-m", "silotune", *words), _child("-c", IMPORTS), repetitions, _of_children
        )
        for name, words in asked.items()
    }


def demo(before: Path) -> dict[str, Ratio]:
    """CPU time of the whole demo in another tree of this repository over that of this one."""
    here = Path(__file__).parents[1]

    def run(tree: Path) -> Callable[[], object]:
        def demo() -> None:
            with tempfile.TemporaryDirectory() as place:
                command = [sys.executable, "-m", "silotune", "run", "triage", "train.threads=1"]
                subprocess.run(
                    [*command, "--output-dir", f"{place}/run"],
                    check=True,
                    capture_output=True,
                    env={
                        **os.environ,
                        "OMP_NUM_THREADS": "1",
                        "PYTHONPATH": str(tree.resolve() / "src"),
                        "SILOTUNE_LIFETIME_FOLDER": f"{place}/life",
                    },
                )

        return demo

    seconds = {name: [_spent(run(tree))] for name, tree in (("before", before), ("after", here))}
    return {"triage": Ratio(*[seconds["before"][0] / seconds["after"][0]] * 3)}


def _spent(run: Callable[[], object]) -> float:
    start = _of_children()
    run()
    return _of_children() - start


def _rates(silos: int) -> list[float]:
    return [64 / (200 * 100 ** (i / silos)) for i in range(silos)]


def _forget() -> None:
    for cache in (accountant._epsilons, pld._one, sampled._sigma, sampled._knot):
        cache.cache_clear()


def _ratio(
    before: Callable[[], object], after: Callable[[], object], repetitions: int, clock: Clock
) -> Ratio:
    seconds = in_turns({"before": before, "after": after}, repetitions, clock)
    return ratio(seconds["before"], seconds["after"])


def _child(*words: str) -> Callable[[], object]:
    environment: Mapping[str, str] = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run() -> None:
        command = [sys.executable, *words]
        subprocess.run(command, check=True, capture_output=True, env=environment)

    return run


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return math.fsum((used.ru_utime, used.ru_stime))


if __name__ == "__main__":
    main()
