"""The record of a run survives whatever happens while it is written."""

import errno
import json
import math
import os
import resource

import pytest

from reports.clinics import rounds
from silotune.core.files import (
    RecordError,
    append_line,
    read_json,
    read_lines,
    write_json,
    write_text,
)
from silotune.runs.folder import RoundRecord, RunFolder


def disk_full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "runs" / "one")


def test_rounds_come_back_as_they_were_written(run):
    for record in rounds():
        run.append_round(record)
    assert run.read_rounds() == rounds()


def test_a_line_has_the_agreed_fields(run):
    run.append_round(rounds()[9])
    line = json.loads(run.metrics.read_text())
    assert list(line) == [
        "version",
        "round",
        "seconds",
        "bytes_up",
        "bytes_down",
        "clients",
        "missing",
        "aggregation_error",
        "epsilon",
        "metrics",
        "silos",
        "update_norm",
        "noise_to_signal",
    ]
    assert line["version"] == 1
    assert line["round"] == 8


def test_numbers_that_are_not_finite_are_null_on_disk(run):
    run.append_round(RoundRecord(round=0, metrics={"loss": math.nan, "accuracy": 0.5}))
    assert json.loads(run.metrics.read_text())["metrics"] == {"loss": None, "accuracy": 0.5}
    (back,) = run.read_rounds()
    assert math.isnan(back.metrics["loss"])


def test_an_infinite_epsilon_comes_back_infinite(run):
    run.append_round(RoundRecord(round=0, epsilon={"a": math.inf}))
    (back,) = run.read_rounds()
    assert back.epsilon == {"a": math.inf}


def test_noise_over_signal_is_there_where_it_is_known(run):
    ratios = [None, 1.5, math.inf]
    for i, ratio in enumerate(ratios):
        run.append_round(RoundRecord(round=i, noise_to_signal=ratio))
    assert [record.noise_to_signal for record in run.read_rounds()] == ratios
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert "noise_to_signal" not in lines[0]
    assert lines[2]["noise_to_signal"] is None


def test_a_torn_last_line_is_dropped_and_then_overwritten(run):
    first, second, third = rounds()[:3]
    run.append_round(first)
    run.append_round(second)
    whole = run.metrics.read_bytes()
    run.metrics.write_bytes(whole[:-30])
    assert run.read_rounds() == [first]
    run.append_round(third)
    assert run.read_rounds() == [first, third]


@pytest.mark.parametrize("cut", [1, 7, 200])
def test_every_torn_end_leaves_the_rounds_before_it(run, cut):
    for record in rounds()[:3]:
        run.append_round(record)
    run.metrics.write_bytes(run.metrics.read_bytes()[:-cut])
    assert run.read_rounds() == rounds()[:2]


def test_a_damaged_line_in_the_middle_is_an_error(run):
    for record in rounds()[:3]:
        run.append_round(record)
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text(lines[0] + "{broken\n" + lines[2])
    with pytest.raises(RecordError, match="line 2: damaged"):
        run.read_rounds()


def test_a_newer_version_is_refused(run):
    run.metrics.write_text('{"version": 2, "round": 0}\n')
    with pytest.raises(RecordError, match=r"newer silotune .version 2.*upgrade"):
        run.read_rounds()
    write_text(run.run, '{"version": 9}')
    with pytest.raises(RecordError, match="version 9"):
        read_json(run.run)


def test_fields_of_the_same_version_that_are_unknown_are_ignored(run):
    run.metrics.write_text('{"version": 1, "round": 0, "mood": "good"}\n')
    assert run.read_rounds() == [RoundRecord(round=0)]


def test_a_line_without_its_round_is_an_error(run):
    run.metrics.write_text('{"version": 1, "seconds": 1.0}\n')
    with pytest.raises(RecordError, match=r"metrics\.jsonl, line 1: damaged, round is missing"):
        run.read_rounds()


def test_a_line_of_other_types_is_an_error(run):
    run.metrics.write_text('{"version": 1, "round": "0", "clients": [1], "seconds": null}\n')
    with pytest.raises(RecordError, match="line 1: damaged, round, clients is of another type"):
        run.read_rounds()


def test_no_rounds_yet(run):
    assert run.read_rounds() == []


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_keeps_the_old_file(run, monkeypatch, call):
    write_text(run.config, "old")
    monkeypatch.setattr(os, call, disk_full)
    with pytest.raises(
        RecordError, match=r"config\.yaml: No space left.*free some space$"
    ) as error:
        write_text(run.config, "new")
    monkeypatch.undo()
    assert isinstance(error.value, ValueError)
    assert run.config.read_text() == "old"
    assert [path.name for path in run.path.iterdir()] == ["config.yaml"], "no draft is left"


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_keeps_the_old_lines(run, monkeypatch, call):
    run.append_round(rounds()[0])
    before = run.metrics.read_bytes()
    monkeypatch.setattr(os, call, disk_full)
    with pytest.raises(RecordError, match=r"metrics\.jsonl: No space left"):
        run.append_round(rounds()[1])
    monkeypatch.undo()
    assert run.metrics.read_bytes() == before


def test_a_disk_that_fills_up_in_the_middle_of_a_line(run, monkeypatch):
    run.append_round(rounds()[0])
    before = run.metrics.read_bytes()
    really_write, room = os.write, [10]

    def until_full(file, data):
        if not room:
            return disk_full()
        return really_write(file, data[: room.pop()])

    monkeypatch.setattr(os, "write", until_full)
    with pytest.raises(RecordError, match="No space left"):
        run.append_round(rounds()[1])
    monkeypatch.undo()
    assert run.metrics.read_bytes() == before


def test_a_file_that_takes_more_than_one_call(run, monkeypatch):
    """Linux writes 2 GB a call, and says so."""
    really_write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: really_write(file, data[:10]))
    write_text(run.config, "0123456789" * 5)
    monkeypatch.undo()
    assert run.config.read_text() == "0123456789" * 5


def test_a_real_limit_on_the_size_of_files(run):
    append_line(run.ledger, {"round": 0})
    before = run.ledger.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, hard))
    try:
        with pytest.raises(RecordError, match=r"ledger\.jsonl"):
            append_line(run.ledger, {"round": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run.ledger.read_bytes() == before


def test_a_reader_never_sees_half_a_file(run, monkeypatch):
    write_json(run.run, {"status": "running"})
    seen = []
    really_replace = os.replace

    def replace(draft, path):
        seen.append(read_json(run.run)["status"])
        really_replace(draft, path)

    monkeypatch.setattr(os, "replace", replace)
    write_json(run.run, {"status": "finished"})
    assert seen == ["running"]
    assert read_json(run.run)["status"] == "finished"


def test_a_new_run_does_not_overwrite_an_old_one(run):
    write_json(run.run, {})
    with pytest.raises(RecordError, match=r"folder: .*--resume.*--output-dir"):
        RunFolder.create(run.path)
    assert RunFolder.existing(run.path) == run


def test_a_folder_without_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert RunFolder.create(tmp_path).path == tmp_path, "other files are no run"
    with pytest.raises(RecordError, match=r"no run is here .there is no run\.json"):
        RunFolder.existing(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="file/run: Not a directory"):
        RunFolder.create(tmp_path / "file" / "run")


@pytest.mark.parametrize("name", ["..", ".", "../../etc", "a/b", "", "-", "Zürich 3", "北", "a\0b"])
def test_the_folder_of_a_silo_stays_inside(run, name):
    folder = run.site(name)
    assert folder.parent == run.path / "sites"
    assert folder.name not in {"", ".", ".."}
    folder.mkdir(parents=True)


def test_silos_never_share_a_folder(run):
    names = ["a/b", "a%2Fb", "a_b", "a b", "a.b", ".a", "%2Ea", "a", "", "%"]
    assert len({run.site(name) for name in names}) == len(names)


def test_lines_of_any_kind(run):
    append_line(run.ledger, {"silo": "Zürich", "epsilon": 1.5})
    assert read_lines(run.ledger) == [{"version": 1, "silo": "Zürich", "epsilon": 1.5}]
