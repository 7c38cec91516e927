"""``evaluate`` and ``export``: what is done with the result of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from silotune.job.exporting import export_merged, export_peft
from silotune.job.finished import Split, evaluate
from silotune.reports.record import RunFolder
from silotune.reports.units import metric_text

from .console import busy, emit, say, speaker


def score_run(
    path: Path, split: Split | None, masked_experts: Sequence[str] = (), *, as_json: bool
) -> None:
    """Score a run's adapter, or its silos' own ones; of a mixture perhaps without some experts."""
    console = speaker(as_json=as_json)
    with busy(console, "opening model and data"):
        found = evaluate(RunFolder(path), split, masked_experts)
    say(console, f"{path}, {found.split}: {_metrics(found.metrics)}")
    for silo, metrics in found.silos.items():
        say(console, f"  {silo}: {_metrics(metrics)}")
    if as_json:
        emit({"run": str(path), **asdict(found)})


def export_run(
    path: Path,
    kind: Literal["peft", "merged"],
    output: Path,
    silo: str | None,
    *,
    approximate: bool,
) -> None:
    """Write an adapter or a whole model: the one that all silos share, or a silo's own."""
    console = speaker()
    with busy(console, "writing"):
        if kind == "peft":
            export_peft(RunFolder(path), output, silo)
        else:
            export_merged(RunFolder(path), output, silo, approximate=approximate)
    say(console, f"wrote {output}; its README.md says how to load it")


def _metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {metric_text(name, value)}" for name, value in metrics.items())
