"""A run over three clinics as it lies in its folder at some moment."""

from contextlib import contextmanager
from dataclasses import replace

from reports.clinics import CLINICS, facts, rounds, write_run
from silotune.core.locks import locked
from silotune.runs.folder import RunFolder
from silotune.runs.live import Doing, Live, SiteLive, Stage, moment, write_live

HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[2J\u202e&\"'"
"""Somebody's name or reason, who means no good."""


def live(**changes) -> Live:
    """One trains, one waits for its owner, of one the line is down."""
    at = "2026-03-02T09:16:40+00:00"
    given = {
        "run": "triage-7c2f91",
        "title": "triage",
        "coordinator": "lead",
        "began": "2026-03-02T09:15:04+00:00",
        "rounds": 20,
        "metric": "accuracy",
        "unit": "example",
        "privacy": "example",
        "budget": 6.0,
        "delta": 1e-5,
        "stage": Stage.TRAIN,
        "sites": {
            "north": SiteLive(
                doing=Doing.WORKING, order="train", since=moment(), heard=moment(), connected=True
            ),
            "harbour": SiteLive(doing=Doing.IDLE, order="train", since=at, heard=at),
            "hill": SiteLive(doing=Doing.ASKED, order="train", since=at, connected=False),
        },
    }
    return Live(**{**given, **changes})


def site(**changes) -> dict[str, SiteLive]:
    """All three the same."""
    return dict.fromkeys(CLINICS, SiteLive(**changes))


def write_looked_at(path, now: Live | None = None, done: int = 9, **changes) -> RunFolder:
    """A folder after so many rounds; no process has it."""
    run = replace(facts(), **{"status": "running", "finished": None, **changes})
    folder = write_run(path, rounds()[: done + 1], run)
    write_live(folder.live, now or live())
    return folder


@contextmanager
def going_on(folder: RunFolder):
    """As if a process had the run."""
    with locked(folder.lock):
        yield folder
