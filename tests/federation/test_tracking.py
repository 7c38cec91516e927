"""What trackers are told of a run, while it goes on and when it goes on again."""

import logging
import sys

import pytest

import silotune as st
from federation.objects import SEEDED, federation
from silotune.federation import tracking
from silotune.runs.folder import RunFolder


class Spy:
    """A tracker that keeps all it is told."""

    def __init__(self, tracked):
        self.tracked, self.steps, self.ends = tracked, {}, []

    def log(self, step, numbers):
        self.steps[step] = numbers

    def close(self, *, done):
        self.ends.append(done)


class Failing(Spy):
    def log(self, step, numbers):
        super().log(step, numbers)
        raise OSError("no\nnetwork")


@pytest.fixture
def spies(monkeypatch):
    """Every tracker that is opened, in order."""
    opened = []

    def find(name):
        kind = Failing if name == "trackio" else Spy
        return lambda tracked: opened.append(kind(tracked)) or opened[-1]

    monkeypatch.setattr(tracking, "find_tracker", find)
    return opened


def text(spy) -> str:
    return repr((spy.tracked.run, spy.tracked.parameters, spy.steps))


def test_what_goes_elsewhere_is_of_no_silo_and_of_no_record(bert, tmp_path, spies):
    made = federation(
        bert, privacy=SEEDED, num_examples=20, rounds=2, report_to=("wandb", "tensorboard")
    )
    run = made.fit(tmp_path / "private folder")
    elsewhere, beside = spies
    assert set(elsewhere.steps) == set(beside.steps) == {0, 1, 2}
    assert run.metrics[0].silos, "there is something that must not be told"
    for word in ("east", "west", "silos/", "private folder", str(bert.parent), "mouse", "bird"):
        assert word not in text(elsewhere), word
    assert {name for name in beside.steps[2] if name.startswith("silos/")}
    named = "epsilon if noise were secret"
    for step, numbers in elsewhere.steps.items():
        record = run.metrics[step]
        assert numbers["global/accuracy"] == record.metrics["accuracy"]
        cost = {name: value for name, value in numbers.items() if "epsilon" in name}
        expected = {named: max(record.epsilon.values())} if record.epsilon else {}
        assert cost == expected
    assert elsewhere.tracked.parameters["method"] == "ffa-lora"
    assert elsewhere.ends == [True]


def test_scores_that_stay_at_home_are_told_to_nobody(bert, tmp_path, spies):
    given = {"privacy": SEEDED, "num_examples": 20, "evaluation": "site", "rounds": 1}
    federation(bert, **given, report_to=("mlflow", "tensorboard")).fit(tmp_path / "run")
    for spy in spies:
        assert "accuracy" not in text(spy)
        assert "loss" not in text(spy)
        assert set(spy.steps) == {0, 1}


def test_under_client_level_privacy_no_time_is_told(bert, tmp_path, spies):
    hidden = st.ClientDP(noise_multiplier=1.0, target_delta=1e-3, insecure_seeded_noise=True)
    given = {"privacy": hidden, "num_examples": 20}
    federation(bert, **given, rounds=1, report_to=("mlflow",)).fit(tmp_path / "run")
    assert "round/seconds" not in spies[0].steps[1]
    assert "round/update_norm" in spies[0].steps[1]


def test_a_tracker_that_fails_is_left_alone_and_the_run_goes_on(bert, tmp_path, spies, caplog):
    made = federation(bert, rounds=2, report_to=("trackio", "mlflow"))
    with caplog.at_level(logging.WARNING):
        run = made.fit(tmp_path / "run")
    failing, fine = spies
    assert (set(failing.steps), failing.ends) == ({0}, [])
    assert (set(fine.steps), fine.ends) == ({0, 1, 2}, [True])
    told = [r.getMessage() for r in caplog.records if "report_to" in r.getMessage()]
    assert told == [
        "report_to: trackio failed (OSError: no network) and is told nothing more; the run goes on"
    ]
    assert run.facts.status == "finished"


def test_what_is_resumed_goes_on_under_the_same_name(bert, tmp_path, spies):
    made = federation(bert, rounds=3, report_to=("mlflow",))
    rounds = made.rounds(tmp_path / "run")
    for record in rounds:
        if record.round == 0:
            break
    rounds.close()
    made.fit(tmp_path / "run", resume=True)
    first, second = spies
    assert first.tracked.run == second.tracked.run
    assert (first.tracked.first, second.tracked.first) == (0, 2)
    assert (set(first.steps), first.ends) == ({0, 1}, [False])
    assert (set(second.steps), second.ends) == ({2, 3}, [True])
    assert RunFolder(tmp_path / "run").read_rounds()[-1].round == 2


def test_what_is_not_installed_is_said_before_anything_trains(bert, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"report_to: .*pip install 'silotune\[wandb\]'"):
        federation(bert, rounds=1, report_to=("wandb",)).fit(tmp_path / "run")
    assert not RunFolder(tmp_path / "run").metrics.exists()
