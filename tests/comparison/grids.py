"""Grids for tests, and runs that are written down in place of being trained."""

from __future__ import annotations

from pathlib import Path

from silotune.comparison.complete import Hands
from silotune.comparison.job import Job
from silotune.comparison.record import Note, write_note
from silotune.config import Config
from silotune.core.files import write_json
from silotune.runs.facts import RunFacts
from silotune.runs.folder import RoundRecord, RunFolder
from silotune.runs.scored import Scored

BASE = {
    "model": {"name_or_path": "./no-model", "task": "sequence-classification"},
    "data": {
        "path": "notes.csv",
        "silos": {"by": "silo"},
        "valid_fraction": 0.2,
        "columns": {"text": "text", "label": "label"},
        "splits": {"train": "train", "test": "test"},
    },
    "method": {"name": "ffa-lora", "r": 2},
    "privacy": {"unit": "example", "target_epsilon": 6, "target_delta": 1e-5},
}
GRID = {
    "base": BASE,
    "axes": {
        "method": {"ffa": {"method": {"name": "ffa-lora", "r": 2}}}
        | {"fedit": {"method.name": "fedit"}},
        "privacy.target_epsilon": [1, 6],
    },
    "seeds": 3,
    "baseline": {"method": "ffa"},
}  # fmt: skip
SILOS = ("harbour", "university", "village")
RATES = {"train.learning_rate": [0.1, 0.5, 2.0]}


def grid(**changes: object) -> dict[str, object]:
    return {**GRID, **changes}


def value_of(config: Config, tuned: str = "") -> float:
    """What a run reaches: fedit is better, and so are more epsilon and a rate near 0.5."""
    better = 0.05 if config.method.name == "fedit" else 0.0
    rate = config.train.learning_rate if "learning_rate" in tuned else "auto"
    rate = 0.5 if rate == "auto" else rate
    luck = 0.002 * (config.train.seed % 3)
    return 0.7 + better + 0.01 * (config.privacy.target_epsilon or 0) - 0.1 * abs(rate - 0.5) + luck


def write_run(job: Job) -> str:
    """The folder of a run, as if it had ended."""
    config, folder = job.config, RunFolder(Path(job.folder))
    folder.path.mkdir(parents=True)
    value = value_of(config, " ".join(job.overrides))
    scored = Scored(part="test", records=100, metrics={"accuracy": value})
    facts = RunFacts(
        run="x",
        started="2026-03-02T09:15:04+00:00",
        status="finished",
        seed=config.train.seed,
        metric="accuracy",
        scored=scored,
    )
    write_json(folder.run, facts.to_json())
    for done in (-1, 0, 1):
        silos = {"north": {"accuracy": value + 0.01}, "south": {"accuracy": value - 0.01}}
        metrics = {"accuracy": 0.5 + (done + 1) * (value - 0.5) / 2}
        sent = 100 if done >= 0 else 0
        folder.append_round(RoundRecord(round=done, bytes_up=sent, metrics=metrics, silos=silos))
    untrained = {"accuracy": 0.5} if job.untrained else {}
    write_note(folder.path, Note(peak_memory=10**8, untrained=untrained))
    return ""


class Runner:
    """Writes runs down; remembers which, and fails where it is told to."""

    def __init__(self, fails=lambda config: "", stops_after: int | None = None) -> None:
        self.made: list[Path] = []
        self.fails, self.stops_after = fails, stops_after

    def __call__(self) -> Hands:
        def run(job: Job) -> str:
            if self.stops_after is not None and len(self.made) >= self.stops_after:
                raise KeyboardInterrupt
            if why := self.fails(job.config):
                return why
            self.made.append(Path(job.folder))
            return write_run(job)

        return Hands(run=run)
