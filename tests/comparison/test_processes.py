"""Grids that really train: in this process, and in others, some of which are killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from comparison.grids import Runner
from federation.small import notes, write_csv
from silotune import compare
from silotune.comparison import compared
from silotune.comparison.complete import here
from silotune.comparison.job import Job, run_job
from silotune.comparison.measure import NOT_YET
from silotune.comparison.record import read_note
from silotune.core.files import RecordError
from silotune.federation.workers import SILOTUNE
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder
from silotune_link.process import Process, ProcessDied

SMALL = {"train.num_rounds": 1, "data.num_examples": 20}


def job(folder: Path, *overrides: str, **more: object) -> Job:
    import yaml

    base = ("base", yaml.safe_load(Path("small.yaml").read_text()))
    return Job(folder=str(folder), base=base, overrides=overrides, **more)


def test_a_run_of_a_grid_is_a_run_with_its_baselines_beside_it(place):
    given = {
        "base": "small.yaml",
        "set": SMALL,
        "axes": {"method": {"ffa": {"method": {"name": "ffa-lora", "r": 2}}}},
        "seeds": [5],
        "beside": ["untrained", "silo-alone"],
    }
    found = compare(given, "grid", runner=here)
    (run,) = found.runs
    folder = RunFolder(Path(run.folder))
    facts = read_facts(folder)
    assert (facts.status, facts.seed, run.seed) == ("finished", 5, 5)
    assert folder.report.is_file()
    assert run.value == facts.scored.metrics["accuracy"]
    assert set(run.alone) == {"east", "west"}
    assert 0 <= run.untrained <= 1
    assert [point.round for point in run.rounds] == [0, 1]
    assert run.untrained == run.rounds[0].value, "they are scored on the same records here"
    assert run.peak_memory > 10**7
    assert compare(given, "grid", runner=Runner()).markdown() == found.markdown()


def test_a_trial_never_looks_at_the_test_records_of_all_or_of_a_silo(place):
    parts = {"train": notes(), "test": notes(2, seed=1)}
    rows = [{**note, "split": part} for part, found in parts.items() for note in found]
    write_csv(place / "both.csv", rows)
    changes = (
        "data.path=./both.csv",
        "data.splits={train: train, test: test}",
        "train.num_rounds=1",
    )
    assert run_job(job(Path("g/trial"), *changes, trial=True)) == ""
    assert run_job(job(Path("g/result"), *changes)) == ""
    trial, result = (read_facts(RunFolder(Path(f"g/{name}"))) for name in ("trial", "result"))
    assert (result.scored.part, trial.scored.part) == ("test", "held out")
    assert trial.final == {}


def test_a_run_that_fails_says_why_in_words(place):
    assert "there is no file or folder gone.csv" in run_job(
        job(Path("g/a"), 'data.path="gone.csv"')
    )
    assert read_note(Path("g/a")).failed.startswith("data.path: ")
    assert not RunFolder(Path("g/a")).run.exists()
    assert "method.target_modules" in run_job(job(Path("g/b"), "method.target_modules=[querry]"))


def test_what_is_a_mistake_of_ours_says_so(place, monkeypatch):
    def broken(*args, **more):
        raise KeyError("x")

    monkeypatch.setattr("silotune.comparison.job.settle", broken)
    assert "this is a mistake in silotune" in run_job(job(Path("g/a")))


def test_a_run_that_was_cut_short_goes_on_after_its_last_whole_round(place, monkeypatch):
    from silotune.federation import run as running

    def full(folder, record):
        if record.round == 1:
            raise RecordError("No space left on device")
        append(folder, record)

    append = running.append_round
    monkeypatch.setattr(running, "append_round", full)
    assert "No space left" in run_job(job(Path("g/a")))
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert run_job(job(Path("g/a"))) == ""
    assert [r.round for r in RunFolder(Path("g/a")).read_rounds()] == [-1, 0, 1, 2]


@pytest.mark.slow
def test_a_worker_makes_runs_in_forks_and_outlives_them(place):
    worker = Process([*SILOTUNE, "compare-worker"], place / "log")
    try:
        assert worker.ask(job(Path("g/a"), "train.num_rounds=1").to_bytes()) == b""
        first = worker.pid
        assert b"gone.csv" in worker.ask(job(Path("g/b"), "data.path=./gone.csv").to_bytes())
        assert worker.ask(job(Path("g/c"), "train.num_rounds=1").to_bytes()) == b""
        assert worker.pid == first
        assert read_note(Path("g/c")).peak_memory > 10**8
    finally:
        worker.stop()
    with pytest.raises(ProcessDied):
        worker.ask(b"")


GRID = """
base: small.yaml
set:
  train.num_rounds: 3
  data.num_examples: 20
  privacy: {unit: example, noise_multiplier: 2, target_delta: 1e-3, insecure_seeded_noise: true}
axes:
  method: {ffa: {method: {name: ffa-lora, r: 2}}, fedit: {method: {name: fedit, r: 2}}}
  privacy.noise_multiplier: [1, 3]
seeds: 3
baseline: {method: ffa}
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_grid_that_is_killed_at_any_moment_ends_in_the_same_table(place):
    """Of 12 runs, whenever some more have ended. Seeded noise makes the runs comparable."""
    Path("grid.yaml").write_text(GRID)
    command = [sys.executable, "-m", "silotune", "compare", "grid.yaml", "--output-dir"]
    subprocess.run([*command, "whole"], check=True, capture_output=True)
    for ended, number in ((1, signal.SIGKILL), (4, signal.SIGINT), (8, signal.SIGKILL)):
        process = subprocess.Popen([*command, "grid"], stdout=subprocess.DEVNULL)
        while len(list(Path("grid").glob("cells/*/*/*.json"))) < ended:
            assert process.poll() is None
            time.sleep(0.1)
        os.kill(process.pid, number)
        assert process.wait(timeout=60) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        left = {run.failed for run in compared(Path("grid")).failed}
        assert left == {NOT_YET}, "what was stopped has not failed"
    subprocess.run([*command, "grid"], check=True, capture_output=True)
    whole, found = compared(Path("whole")), compared(Path("grid"))
    assert found.failed == []
    assert [run.value for run in found.runs] == [run.value for run in whole.runs]
    timeless = [
        [c.mean("bytes_up"), c.score, c.difference, c.best] for c in whole.comparison.groups
    ]
    assert timeless == [
        [c.mean("bytes_up"), c.score, c.difference, c.best] for c in found.comparison.groups
    ]
    shutil.rmtree("whole")
