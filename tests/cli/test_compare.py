"""``compare`` and ``report``, as a user types them; runs are written down in place of trained."""

import csv
import io
import json
from pathlib import Path

import pytest

from comparison.grids import GRID, SILOS, Runner, grid
from federation.small import notes, write_csv
from silotune.comparison import results


@pytest.fixture
def grid_file(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results, "comparison_page", lambda comparison: "a page")
    monkeypatch.setattr(results, "processes", lambda folder, count: Runner())
    rows = [{**n, "split": part} for part in ("train", "test") for n in notes(4, SILOS)]
    write_csv(tmp_path / "notes.csv", rows)
    Path("grid.yaml").write_text(json.dumps(GRID))  # JSON is YAML
    return "grid.yaml"


def test_a_grid_is_planned_made_and_reported(silotune, grid_file):
    result = silotune("compare", grid_file, "--plan")
    assert result.exit_code == 0
    assert "4 cells; 0 trials and 12 results would run" in result.stdout
    assert not Path("runs").exists()
    result = silotune("compare", grid_file, "--at-once", "1")
    assert result.exit_code == 0, result.output
    assert "12/12 results: method fedit, privacy.target_epsilon 6, seed 2" in result.stdout
    assert "81.2 ± 0.5 % *" in result.stdout
    assert "runs/grid/report.html" in result.stdout
    Path("runs/grid/report.html").unlink()
    result = silotune("report", "runs/grid", "--format", "csv")
    assert result.exit_code == 0
    assert [row["best"] for row in csv.DictReader(io.StringIO(result.stdout))].count("True") == 2
    assert Path("runs/grid/report.html").is_file()
    for layout in ("markdown", "latex", "html"):
        assert silotune("report", "runs/grid", "--format", layout).exit_code == 0


def test_runs_stand_beside_each_other(silotune, grid_file):
    assert silotune("compare", grid_file).exit_code == 0
    runs = [f"runs/grid/cells/{name}/6/seed-0" for name in ("ffa", "fedit")]
    result = silotune("report", *runs)
    assert result.exit_code == 2
    assert "say where" in result.stderr
    result = silotune("report", *runs, "--output", "two.html", "--format", "markdown")
    assert result.exit_code == 0
    assert Path("two.html").read_text() == "a page"
    assert silotune("report", "nowhere", "-o", "x.html").exit_code == 1


def test_what_is_missing_is_an_exit_code_and_a_stop_says_how_to_go_on(
    silotune, grid_file, monkeypatch
):
    lost = Runner(lambda config: "it broke" if config.train.seed == 1 else "")
    monkeypatch.setattr(results, "processes", lambda folder, count: lost)
    result = silotune("compare", grid_file)
    assert result.exit_code == 1
    assert "No result of" in result.stdout
    assert "it broke" in result.stdout
    assert "4 results missing; the same command tries again" in result.stdout
    monkeypatch.setattr(results, "processes", lambda folder, count: Runner(stops_after=1))
    result = silotune("compare", grid_file, "--output-dir", "other")
    assert result.exit_code == 130
    assert "Continue with: silotune compare grid.yaml --output-dir other" in result.stdout


def test_every_problem_of_a_grid_is_a_line(silotune, grid_file):
    Path("grid.yaml").write_text(json.dumps(grid(set={"train.num_round": 1}, baseline={"a": "b"})))
    result = silotune("compare", grid_file)
    assert result.exit_code == 1
    assert [line.partition(": ")[0] for line in result.stderr.splitlines()] == ["error", "error"]
    assert "did you mean train.num_rounds" in result.stderr
