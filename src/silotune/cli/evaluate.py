"""``evaluate``: what the result of a run scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from silotune.core.units import metric_text
from silotune.federation.results import Generate, Split, evaluate
from silotune.reports.certainty import METHOD, score_text
from silotune.runs.folder import RunFolder

from .config_source import of_run
from .console import busy, emit, say, speaker


def score_run(
    path: Path,
    split: Split | None,
    masked_experts: Sequence[str] = (),
    generate: Generate = False,
    *,
    as_json: bool,
) -> None:
    """Score a run's adapter, or its silos' own ones; of a mixture perhaps without some experts."""
    console = speaker(as_json=as_json)
    doing = "writing a text for every record" if generate else "opening model and data"
    with busy(console, doing):
        folder = RunFolder(path)
        evaluation = evaluate(of_run(folder), folder, split, masked_experts, generate)
    scored = evaluation.scored
    say(console, f"{path}, {evaluation.split}: {score_text(scored) if scored else 'no records'}")
    for silo, metrics in evaluation.silos.items():
        n = f"; n = {scored.silos[silo]:,}" if scored else ""
        say(console, f"  {silo}: {_metrics(metrics)}{n}")
    if scored:
        say(console, METHOD)
    for note in evaluation.notes:
        say(console, f"note: {note}", style="yellow")
    if as_json:
        emit({"run": str(path), **asdict(evaluation)})


def _metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {metric_text(name, value)}" for name, value in metrics.items())
