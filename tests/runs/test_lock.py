"""One process at a time has a run's folder, and others are told which."""

import os
import signal
import subprocess
import sys

import pytest

from silotune.core.locks import is_locked, locked
from silotune.runs.folder import RunFolder
from silotune.runs.lock import FolderInUse, held, refuse_while_written


def test_who_has_the_folder_is_told(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with held(folder):
        for ask in (lambda: held(folder).__enter__(), lambda: refuse_while_written(folder)):
            with pytest.raises(
                FolderInUse, match=rf"{folder.path} .process {os.getpid()} on .*202"
            ):
                ask()
    refuse_while_written(folder)
    assert not folder.path.exists(), "nothing was begun"


def test_a_folder_that_holds_something_stays(tmp_path):
    folder = RunFolder(tmp_path)
    with held(folder):
        pass
    assert tmp_path.is_dir(), "it was there before"
    folder = RunFolder(tmp_path / "run")
    with held(folder):
        folder.run.write_text("{}")
    assert [path.name for path in folder.path.iterdir()] == ["run.json"]


def test_a_lock_whose_holder_was_killed_holds_nobody(tmp_path):
    program = (
        "import sys, fcntl, time; file = open(sys.argv[1], 'w'); "
        "fcntl.flock(file, fcntl.LOCK_EX); print('has it', flush=True); time.sleep(60)"
    )
    folder = RunFolder(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", program, folder.lock], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "has it\n"
        with pytest.raises(FolderInUse, match="another process, which has not yet said which"):
            held(folder).__enter__()
        other.send_signal(signal.SIGKILL)
    assert folder.lock.exists()
    refuse_while_written(folder)
    with held(folder):
        assert is_locked(folder.lock)


def test_a_lock_that_was_removed_meanwhile_is_taken_at_its_place(tmp_path, monkeypatch):
    path, really = tmp_path / "lock", os.open
    taken = []

    def removed_at_first(*args):
        file = really(*args)
        if not taken:
            path.unlink()
        taken.append(file)
        return file

    monkeypatch.setattr(os, "open", removed_at_first)
    with locked(path):
        assert is_locked(path)
    assert len(taken) == 2
