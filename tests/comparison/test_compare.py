"""What is missing of a grid is made, once; what ends it loses nothing; and tuning sees no test."""

import json
import math
import sys
from contextlib import nullcontext
from itertools import count
from threading import Event

import pyarrow.parquet as pq
import pytest

from comparison.grids import GRID, RATES, SILOS, Runner, grid
from federation.small import notes, write_csv
from silotune import compare
from silotune.comparison import compared, planned
from silotune.comparison.complete import Hands
from silotune.comparison.grid import settings_text
from silotune.comparison.record import write_note
from silotune.comparison.tuning import check_apart
from silotune.config import ConfigError, load_config
from silotune.core.files import RecordError
from silotune.runs.folder import RunFolder
from silotune.runs.lock import FolderInUse, held


def made(given, folder, **options):
    runner = options.pop("runner", None) or Runner()
    return compare(given, folder, runner=runner, **options), runner


def test_every_result_is_made_once_and_the_tables_say_what_came_of_it(tmp_path):
    found, runner = made(grid(), tmp_path / "grid")
    assert len(runner.made) == 12
    again, second = made(grid(), tmp_path / "grid")
    assert second.made == []
    assert again.markdown() == found.markdown()
    by_labels = {tuple(g.labels.values()): g for g in found.comparison.groups}
    fedit = by_labels["fedit", "6"]
    assert fedit.score.mean == pytest.approx(0.812)
    assert fedit.difference.mean == pytest.approx(0.05)
    assert fedit.best
    assert not by_labels["ffa", "6"].best
    for name in ("runs.parquet", "runs.csv", "table.md", "table.tex", "table.csv", "report.html"):
        assert (tmp_path / "grid" / name).stat().st_size > 0
    assert "**81.2" in (tmp_path / "grid" / "table.md").read_text()
    table = pq.read_table(tmp_path / "grid" / "runs.parquet").to_pydict()
    assert len(table["value"]) == 12
    assert table["value"] == [run.value for run in found.runs]
    assert list(found.to_pandas()["seed"]) == [0, 1, 2] * 4


def test_one_that_is_stopped_goes_on_and_ends_in_the_same_table(tmp_path):
    whole, _ = made(grid(tune=RATES), tmp_path / "whole")
    first = Runner(stops_after=7)
    with pytest.raises(KeyboardInterrupt):
        made(grid(tune=RATES), tmp_path / "grid", runner=first)
    partly = compared(tmp_path / "grid")
    assert len(partly.failed) == 12
    assert "has not run yet" in repr(partly)
    found, second = made(grid(tune=RATES), tmp_path / "grid")
    assert len(first.made) == 7
    assert len(second.made) == 24 - 7
    assert not set(first.made) & set(second.made)
    assert found.markdown() == whole.markdown()


def test_every_cell_takes_what_did_best_on_valid_records_which_is_said(tmp_path, drawn):
    found, _ = made(grid(tune=RATES), tmp_path / "grid")
    trials = [run for run in found.runs if run.trial]
    assert len(trials) == 12
    assert {run.part for run in trials} == {"valid"}
    assert {run.seed for run in trials} == {1000}
    assert all(g.runs[0].tuned == {"train.learning_rate": 0.5} for g in found.comparison.groups)
    assert "Tuning is not charged" in found.markdown()
    assert "by 3 trials of every cell" in found.html()
    assert "learning_rate 0.5" in repr(found)


def test_a_choice_at_the_end_of_what_was_tried_is_said(tmp_path):
    rates = {"train.learning_rate": [0.5, 2.0, 4.0]}
    found, _ = made(grid(tune=rates), tmp_path / "grid")
    assert "at the end of what was tried" in repr(found)


def test_nobody_is_best_while_one_that_competes_has_still_to_run(tmp_path):
    for after in range(5, 12):
        with pytest.raises(KeyboardInterrupt):
            made(grid(), tmp_path / str(after), runner=Runner(stops_after=after))
        for block in compared(tmp_path / str(after)).comparison.blocks.values():
            waits = any("has not run yet" in group.failed for group in block)
            assert any(group.best for group in block) != waits


def test_a_cell_that_fails_says_why_and_is_tried_again(tmp_path):
    def fails(config):
        return "out of memory" if config.method.name == "fedit" else ""

    found, runner = made(grid(), tmp_path / "grid", runner=Runner(fails))
    assert len(runner.made) == 6
    assert [run.failed for run in found.failed] == ["out of memory"] * 6
    without = "method fedit · privacy.target_epsilon 1, method fedit · privacy.target_epsilon 6"
    assert f"No result of {without}: out of memory" in found.markdown()
    assert not any(group.best for group in found.comparison.groups), "one alone is best of nothing"
    found, runner = made(grid(), tmp_path / "grid")
    assert (len(runner.made), found.failed) == (6, [])


def test_a_cell_that_is_refused_before_anything_runs_has_the_reason(tmp_path):
    given = grid(
        axes={"method.name": ["ffa-lora", "fedsa-lora"]},
        baseline={},
        set={"privacy.unit": "client", "privacy.target_delta": 0.01, "train.weighting": "uniform"},
    )
    found, runner = made(given, tmp_path / "grid")
    assert len(runner.made) == 3
    assert "fedsa-lora: client-level privacy" in found.failed[0].failed
    assert [bool(cell.refusal) for cell in planned(given).cells] == [False, True]


def test_where_no_trial_has_a_result_there_is_none(tmp_path):
    def fails(config):
        return "it broke" if config.train.seed == 1000 and config.method.name == "fedit" else ""

    found, _ = made(grid(tune=RATES), tmp_path / "grid", runner=Runner(fails))
    assert found.failed[0].failed == "none of its 3 trials has a result: it broke"


OTHER = {"ffa": {"method.r": 4}, "fedit": {"method.name": "fedit"}}
CHANGES = {
    "another base": (grid(set={"train.num_rounds": 7}), "train.num_rounds (20 -> 7)"),
    "an axis": (grid(axes={**GRID["axes"], "train.momentum": [0.5]}), "axes (method, privacy"),
    "a cell is gone": (grid(axes={**GRID["axes"], "privacy.target_epsilon": [6]}), "1 (is gone)"),
    "what a label means": (grid(axes={**GRID["axes"], "method": OTHER}), "method.r (2 -> 4)"),
    "a seed is gone": (grid(seeds=[0, 1]), "seeds (2 is gone)"),
    "tuning": (grid(tune=RATES), "tune (nothing -> train.learning_rate: 0.1, 0.5, 2.0)"),
    "untrained": (grid(beside=["untrained"]), "beside (untrained is new)"),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun") / "grid"
    made(grid(), folder)
    return folder


@pytest.mark.parametrize("name", CHANGES)
def test_a_grid_that_changes_after_it_began_is_refused_with_what_changed(begun, name):
    given, words = CHANGES[name]
    before = (begun / "grid.json").read_bytes()
    with pytest.raises(RecordError) as error:
        made(given, begun)
    assert words in str(error.value)
    assert (begun / "grid.json").read_bytes() == before


def test_cells_and_seeds_and_baselines_may_be_added(tmp_path):
    made(grid(), tmp_path / "grid")
    axes = {**GRID["axes"], "privacy.target_epsilon": [1, 3, 6]}
    found, runner = made(grid(axes=axes, seeds=4, beside=["linear-probe"]), tmp_path / "grid")
    assert len(runner.made) == 6 * 4 - 12 + 3 * 4
    assert found.failed == []


def test_what_a_run_is_computed_beside_may_change(tmp_path):
    made(grid(), tmp_path / "grid")
    _, runner = made(grid(set={"train.per_device_eval_batch_size": 7}), tmp_path / "grid")
    assert runner.made == []


def test_two_processes_do_not_have_one_grid(tmp_path):
    with held(RunFolder(tmp_path / "grid")), pytest.raises(FolderInUse, match="process"):
        made(grid(), tmp_path / "grid")


def test_the_folder_of_a_run_is_no_grids(tmp_path):
    found, _ = made(grid(), tmp_path / "grid")
    with pytest.raises(RecordError, match="holds a run"):
        made(grid(), found.runs[0].folder)


def test_a_full_disk_loses_nothing_that_is_finished(tmp_path, monkeypatch):
    """The note of the sixth run cannot be written."""
    runner = Runner()

    def full(path, note):
        if len(runner.made) > 5:
            raise RecordError(f"{path}: No space left on device")
        write_note(path, note)

    monkeypatch.setattr("comparison.grids.write_note", full)
    with pytest.raises(RecordError, match="No space left"):
        made(grid(), tmp_path / "grid", runner=runner)
    monkeypatch.undo()
    done = [run for run in compared(tmp_path / "grid").runs if not run.failed]
    assert len(done) == 5


def test_without_ray_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    with pytest.raises(ValueError, match=r"runtime: ray needs Ray; pip install 'silotune\[ray\]'"):
        compare(grid(), tmp_path / "grid", runtime="ray")
    assert not (tmp_path / "grid").exists()


def test_a_grid_that_stops_is_its_own_until_no_run_goes_on(tmp_path):
    """The second fails; another is ended with the runner."""
    folder, numbers, closed, alone = tmp_path / "grid", count(), Event(), []

    def runner():
        def run(job):
            if next(numbers) == 1:
                raise RecordError("No space left on device")
            assert closed.wait(60)
            with pytest.raises(FolderInUse), held(RunFolder(folder)):
                pass
            alone.append(job)
            return "it was stopped"

        return Hands(run=run, at_once=2, stop=closed.set)

    with pytest.raises(RecordError, match="No space left"):
        compare(grid(), folder, runner=runner)
    assert 1 <= len(alone) <= 2


TEST_SPLIT = {
    "no test part": (
        {"splits": {"train": "train", "valid": "test"}},
        "name one in data.splits.test",
    ),
    "no valid part": (
        {"splits": {"train": "train", "test": "test"}, "valid_fraction": 0.0},
        "rounds are scored on the test ones",
    ),
    "the same part": (
        {"splits": {"train": "train", "valid": "test", "test": "test"}},
        "half of the test part or more are valid records too",
    ),
}


@pytest.mark.parametrize("name", TEST_SPLIT)
def test_a_grid_that_would_tune_on_the_test_is_refused(tmp_path, name):
    data, words = TEST_SPLIT[name]
    base = {**GRID["base"], "data": {**GRID["base"]["data"], **data}}
    with pytest.raises(ConfigError, match=words):
        made(grid(base=base, tune=RATES), tmp_path / "grid")
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(("shared", "refused"), [(10, True), (1, False)])
def test_a_valid_part_that_is_most_of_the_test_is_refused(tmp_path, shared, refused):
    """Leaving one record out does not make another part of it; records that recur by chance do."""
    both = notes(4, SILOS, seed=1)
    other = notes(4, SILOS, seed=2)
    parts = {
        "train": notes(12, SILOS),
        "valid": [*both[:shared], *other[shared:]],
        "test": both,
    }
    rows = [{**note, "split": part} for part, found in parts.items() for note in found]
    write_csv(tmp_path / "notes.csv", rows)
    data = {**GRID["base"]["data"], "path": str(tmp_path / "notes.csv")}
    data["splits"] = {"train": "train", "valid": "valid", "test": "test"}
    given = load_config(None, settings_text({**GRID["base"], "data": data}))
    with pytest.raises(ConfigError, match="half of the test") if refused else nullcontext():
        check_apart(given)


def test_a_valid_part_that_is_a_piece_of_the_test_is_refused(tmp_path):
    """Records that choose are all of the test, though most of the test does not choose."""
    test = notes(8, SILOS, seed=1)
    parts = {"train": notes(12, SILOS), "valid": test[:3], "test": test}
    rows = [{**note, "split": part} for part, found in parts.items() for note in found]
    write_csv(tmp_path / "notes.csv", rows)
    data = {**GRID["base"]["data"], "path": str(tmp_path / "notes.csv")}
    data["splits"] = {"train": "train", "valid": "valid", "test": "test"}
    given = load_config(None, settings_text({**GRID["base"], "data": data}))
    with pytest.raises(ConfigError, match="half of the valid part or more are test records"):
        check_apart(given)


def test_tuning_outside_a_simulation_is_refused_in_words(tmp_path):
    with pytest.raises(ConfigError, match=r"tuning looks at private records 3 times.*site"):
        made(grid(tune=RATES, set={"evaluation": "site"}), tmp_path / "grid")


def test_baselines_beside_a_result_are_columns_of_its_row(tmp_path):
    found, _ = made(grid(beside=["untrained"]), tmp_path / "grid")
    assert "| untrained |" in found.markdown()
    assert {run.untrained for run in found.runs} == {0.5}


def test_a_folder_is_needed_where_the_grid_has_no_name():
    with pytest.raises(ValueError, match="folder: name one"):
        compare(grid())


def test_the_record_is_json_of_what_was_begun(begun):
    record = json.loads((begun / "grid.json").read_text())
    assert record["axes"] == ["method", "privacy.target_epsilon"]
    assert len(record["cells"]) == 4


def test_a_result_that_is_no_number_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr("comparison.grids.value_of", lambda config, tuned: math.nan)
    found, _ = made(grid(), tmp_path / "grid")
    assert found.failed[0].failed == "its accuracy is no finite number"
