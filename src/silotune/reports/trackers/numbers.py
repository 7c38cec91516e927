"""Numbers of a round, as trackers show them: those of ``metrics.jsonl`` that are finite."""

from __future__ import annotations

import math

from silotune.runs.folder import RoundRecord


def everything(record: RoundRecord, cost: str = "epsilon") -> dict[str, float]:
    """For files beside ``metrics.jsonl``: also of each silo, by its name.

    Args:
        record: of a round.
        cost: what epsilon is called.
    """
    numbers = _shared(record)
    for silo, metrics in record.silos.items():
        numbers |= {f"silos/{silo}/{name}": value for name, value in metrics.items()}
    numbers |= {f"{cost}/{silo}": value for silo, value in record.epsilon.items()}
    return _finite(numbers)


def public(record: RoundRecord, cost: str = "epsilon") -> dict[str, float]:
    """For other machines: of no single silo, and no silo's name; of epsilon the largest.

    Args:
        record: of a round.
        cost: what epsilon is called.
    """
    spent = {cost: max(record.epsilon.values())} if record.epsilon else {}
    return _finite(_shared(record) | spent)


def _shared(record: RoundRecord) -> dict[str, float]:
    numbers = {f"global/{name}": value for name, value in record.metrics.items()}
    if record.round < 0:
        return numbers
    if record.noise_to_signal is not None:
        numbers["round/noise_to_signal"] = record.noise_to_signal
    return numbers | {
        "round/aggregation_error": record.aggregation_error,
        "round/update_norm": record.update_norm,
        "round/seconds": record.seconds,
        "round/bytes_up": float(record.bytes_up),
        "round/bytes_down": float(record.bytes_down),
    }


def _finite(numbers: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
