"""What each tracker's own library shows of a run; where it is not installed, nothing is tested."""

import math
import socket
import sys
from dataclasses import replace

import pytest

from reports.clinics import rounds
from silotune.reports.trackers import TRACKERS, Tracked, find_tracker
from silotune.reports.trackers.numbers import everything, public

NUMBERS = {"global/accuracy": 0.25, "epsilon": 1.5}


def tracked(run, first=0):
    return Tracked(run="abc123", folder=run, parameters={"method": "fedit", "r": 2}, first=first)


def told(name, run, first, *steps):
    """What a process tells."""
    tracker = find_tracker(name)(tracked(run, first))
    for step in steps:
        tracker.log(step, {**NUMBERS, "global/accuracy": step / 4})
    tracker.close(done=steps[-1] == 3)


def test_tensorboard_shows_every_round_once(fake_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = fake_run(lines=rounds()[:1])
    told("tensorboard", run, 0, 0, 1, 2)
    told("tensorboard", run, 2, 2, 3)
    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("global/accuracy")]
    assert shown == [(step, step / 4) for step in range(4)]


def test_mlflow_goes_on_in_the_same_run(fake_run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    run = fake_run(lines=rounds()[:1])
    told("mlflow", run, 0, 0, 1)
    told("mlflow", run, 2, 2, 3)
    client = mlflow.MlflowClient()
    place = client.get_experiment_by_name("silotune").experiment_id
    (only,) = client.search_runs([place])
    history = client.get_metric_history(only.info.run_id, "global/accuracy")
    assert sorted((m.step, m.value) for m in history) == [(step, step / 4) for step in range(4)]
    assert only.data.params == {"method": "fedit", "r": "2"}
    assert only.info.status == "FINISHED"


def test_wandb_writes_files_that_name_no_machine(fake_run, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(socket, "gethostname", lambda: "somebodys-machine")
    run = fake_run(lines=rounds()[:1])
    told("wandb", run, 0, 0, 1)
    told("wandb", run, 2, 2, 3)
    assert wandb.run is None
    folders = sorted((run.path / "wandb").glob("offline-run-*"))
    assert folders, "nothing was sent"
    assert {folder.name.rpartition("-")[2] for folder in folders} == {"abc123"}
    written = b"".join(f.read_bytes() for folder in folders for f in folder.rglob("*.wandb"))
    assert b"global/accuracy" in written
    assert b"somebodys-machine" not in written
    assert not [f for folder in folders for f in folder.rglob("requirements.txt")]


def test_trackio_goes_on_in_the_same_run(fake_run, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # read when it is imported
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    run = fake_run(lines=rounds()[:1])
    told("trackio", run, 0, 0, 1)
    told("trackio", run, 2, 2, 3)
    shown = [
        (one["step"], one["global/accuracy"]) for one in storage.get_logs("silotune", "abc123")
    ]
    assert shown == [(step, step / 4) for step in range(4)]
    assert capfd.readouterr().out == "", "stdout may belong to a script"


def test_what_is_public_is_of_no_silo(fake_run):
    record = rounds()[3]
    assert set(everything(record)) > set(public(record)) - {"epsilon"}
    assert not any(silo in name for silo in record.silos for name in public(record))
    assert public(record)["epsilon"] == max(record.epsilon.values())
    secret = replace(record, seconds=math.nan, epsilon={"hill": math.inf})
    assert not {"round/seconds", "epsilon"} & set(public(secret))


@pytest.mark.parametrize("name", TRACKERS)
def test_what_is_not_installed_is_named_with_its_extra(name, monkeypatch):
    library = {"tensorboard": "torch.utils.tensorboard"}.get(name, name)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"silotune.reports.trackers.{name}", raising=False)
    with pytest.raises(ValueError, match=rf"report_to: .*pip install 'silotune\[{name}\]'"):
        find_tracker(name)
