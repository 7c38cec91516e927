"""Event files for TensorBoard: the numbers of ``metrics.jsonl``, if ``report_to`` asks for them."""

from __future__ import annotations

from typing import Any

from silotune.certificate.guarantee import is_seeded
from silotune.runs.folder import RoundRecord, RunFolder
from silotune.runs.privacy_statement import read_statement


def write_events(run: RunFolder) -> None:
    """Write every round of ``run`` to event files in its folder ``tensorboard``.

    Steps count completed rounds, so the state before training is step 0. What was written before
    is hidden by what is written now, so this may be called again after more rounds.

    Raises:
        ValueError: if tensorboard is not installed, or the rounds cannot be read.
    """
    rounds, seeded = run.read_rounds(), is_seeded(read_statement(run))
    cost = "epsilon if noise were secret" if seeded else "epsilon"
    writer = summary_writer()(str(run.tensorboard), purge_step=0)
    try:
        for record in rounds:
            for name, value in scalars(record, cost).items():
                writer.add_scalar(name, value, record.round + 1)
    finally:
        writer.close()


def summary_writer() -> Any:
    """The class that writes event files. Ask for it before a run, to learn that it is there.

    Raises:
        ValueError: if tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "report_to: tensorboard is not installed; pip install 'silotune[tensorboard]'"
        ) from error
    return SummaryWriter


def scalars(record: RoundRecord, cost: str = "epsilon") -> dict[str, float]:
    """The numbers of a round under the names that TensorBoard groups by."""
    numbers = {f"global/{name}": value for name, value in record.metrics.items()}
    for silo, metrics in record.silos.items():
        numbers |= {f"silos/{silo}/{name}": value for name, value in metrics.items()}
    numbers |= {f"{cost}/{silo}": value for silo, value in record.epsilon.items()}
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
