"""A grid is read whole, or every problem is named with its key and the fix."""

import json
from math import prod
from pathlib import Path

import pytest

from comparison.grids import BASE, GRID, RATES, grid
from silotune.comparison import read_grid
from silotune.comparison.cells import cells, trials
from silotune.comparison.record import configuration
from silotune.config import ConfigError

BAD = {
    "no base": ({"axes": GRID["axes"]}, "base: is missing"),
    "strange key": (grid(axis={}), "axis: a grid has no such key; there are base, axes"),
    "no axes": (grid(axes={}), "axes: is missing"),
    "axes as a list": (grid(axes=["method"]), "axes: takes `key: value` pairs"),
    "no values": (grid(axes={"train.momentum": []}), "axes.train.momentum: takes a list"),
    "value twice": (grid(axes={"train.momentum": [0.5, 0.5]}), "has a value twice"),
    "mapping without a name": (
        grid(axes={"method": [{"name": "fedit"}]}),
        "needs a name: write the axis as `label: {method: ...}`",
    ),
    "bundle of no keys": (grid(axes={"m": {"a": "fedit"}}), "axes.m.a: takes the keys"),
    "unknown key": (grid(axes={"train.num_round": [1]}), "did you mean train.num_rounds?"),
    "unknown key in set": (grid(set={"train.num_round": 1}), "set: train.num_round: unknown key"),
    "seed as an axis": (grid(axes={"train.seed": [1]}), "train.seed: give the grid's seeds"),
    "threads": (grid(set={"train.threads": 2}), "every run of a grid has one thread"),
    "output": (grid(set={"output_dir": "x"}), "runs lie in the grid's own folder"),
    "contradiction": (
        grid(axes={"method": {"a": {"method": {"name": "fedit"}}}, "method.r": [2, 4]}),
        "axes.method and axes.method.r both set method.r; a key belongs to one of them",
    ),
    "tuned axis": (
        grid(axes={"train.learning_rate": [1]}, tune=RATES, baseline={}),
        "axes.train.learning_rate and tune both set train.learning_rate",
    ),
    "tuned records": (
        grid(tune={"data.splits.valid": ["valid", "test"]}),
        "tune.data.splits.valid: says which records there are",
    ),
    "tuned eyes": (grid(tune={"evaluation": ["site", "public"]}), "tune.evaluation: says which"),
    "no trials": (grid(tune={"train.learning_rate": []}), "tune.train.learning_rate: takes a list"),
    "factors of another key": (
        grid(tune={"train.momentum": {"times_usual": [1]}}),
        "only train.learning_rate also takes {times_usual",
    ),
    "factors below 0": (
        grid(tune={"train.learning_rate": {"times_usual": [-1]}}),
        "times_usual takes numbers above 0",
    ),
    "tuning seed": (grid(tune=RATES, tuning_seed=1), "tuning_seed: 1 is among seeds"),
    "seeds": (grid(seeds=0), "seeds: "),
    "same seed": (grid(seeds=[1, 1]), "seeds: name each once"),
    "baseline axis": (grid(baseline={"methods": "ffa"}), "baseline.methods: is no axis"),
    "baseline label": (grid(baseline={"method": "lora"}), "lora is none of ffa, fedit"),
    "beside": (grid(beside=["all"]), "beside: "),
    "one beside": (grid(beside=5), "seeds, beside: take a list"),
    "no seeds": (grid(seeds=None), "seeds, beside: take a list"),
    "set as a list": (grid(set=["a"]), "set: takes `key: value` pairs"),
    "bundle of a number": (grid(axes={"m": {"a": 5}}), "axes.m.a: takes the keys"),
    "an axis that is no word": (grid(axes={1: ["a"]}), "axes: 1: a key is a word"),
    "a key that is no word": (grid(axes={"m": {"a": {1: 2}}}), "axes: 1: a key is a word"),
    "setting that is no word": (grid(set={1: 2}), "set: 1: a key is a word"),
    "tuned that is no word": (grid(tune={True: [2]}), "tune: true: a key is a word"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_with_its_key(name):
    given, words = BAD[name]
    with pytest.raises(ConfigError) as error:
        read_grid(given)
    assert words in str(error.value)
    assert all(line.startswith("grid: ") for line in error.value.problems)


def test_a_base_in_the_folder_of_a_run_brings_in_no_code(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text("raise SystemExit('was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    planted = {**BASE, "method": {"name": "planted:Method"}}
    (run / "config.yaml").write_text(json.dumps(planted))
    axes = {"train.momentum": [0.0, 0.5]}
    with pytest.raises(ConfigError, match=r"method\.name: .*planted"):
        cells(read_grid(grid(base=str(run / "config.yaml"), axes=axes, baseline={})))
    with pytest.raises(ConfigError, match=r"method\.name: .*planted"):
        configuration(json.dumps(planted))


def test_a_file_is_read_as_the_mapping_that_it_holds(tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text(
        "base: base.yaml\naxes:\n  privacy.target_epsilon: [1, 6]\ntune:\n"
        "  train.learning_rate: {times_usual: [0.5, 2]}\nseeds: [4, 5]\n"
    )
    found = read_grid(file)
    assert found.axes == {
        "privacy.target_epsilon": {
            "1": {"privacy.target_epsilon": 1},
            "6": {"privacy.target_epsilon": 6},
        }
    }
    assert (found.base, found.seeds, found.compared) == (
        "base.yaml",
        (4, 5),
        ("privacy.target_epsilon",),
    )
    with pytest.raises(ConfigError, match="there is no such file"):
        read_grid(tmp_path / "other.yaml")


def test_cells_are_all_combinations_and_each_has_its_own_configuration():
    found = cells(read_grid(grid()))
    assert [tuple(cell.labels.values()) for cell in found] == [
        ("ffa", "1"),
        ("fedit", "1"),
        ("ffa", "6"),
        ("fedit", "6"),
    ]
    assert [cell.config.method.name for cell in found] == ["ffa-lora", "fedit"] * 2
    assert [cell.config.privacy.target_epsilon for cell in found] == [1, 1, 6, 6]
    assert all(cell.config.train.threads == 1 for cell in found)
    assert len({cell.place for cell in found}) == 4


CLIENTS = {"privacy.target_delta": 0.01, "train.weighting": "uniform"}


def test_a_method_that_refuses_the_unit_of_privacy_is_a_cell_with_the_reason():
    axes = {"method.name": ["ffa-lora", "fedsa-lora"], "privacy.unit": ["example", "client"]}
    found = cells(read_grid(grid(axes=axes, baseline={}, set=CLIENTS)))
    refused = {tuple(cell.labels.values()): cell.refusal for cell in found if cell.refusal}
    assert list(refused) == [("fedsa-lora", "client")]
    assert "fedsa-lora: client-level privacy" in refused["fedsa-lora", "client"]
    assert "override" not in refused["fedsa-lora", "client"]


def test_memory_that_runs_share_is_measured_by_none_of_them():
    size = "train.per_device_train_batch_size"
    found = cells(read_grid(grid(axes={size: [8, "auto"]}, baseline={})))
    assert [bool(cell.refusal) for cell in found] == [False, True]
    assert f"{size}: auto would find another number" in found[1].refusal


def test_a_grid_of_which_nothing_can_run_is_refused_as_its_first_cell_is():
    with pytest.raises(ConfigError, match=r"method\.r"):
        cells(read_grid(grid(axes={"method.r": [-1, 0]}, baseline={})))


def test_baselines_stand_beside_every_block():
    found = cells(read_grid(grid(beside=["pooled", "linear-probe"])))
    beside = [(cell.beside, *cell.labels.values()) for cell in found if cell.beside]
    assert beside == [
        (kind, name, epsilon)
        for epsilon in ("1", "6")
        for kind, name in (
            ("pooled", "ffa, pooled"),
            ("pooled", "fedit, pooled"),
            ("linear-probe", "linear probe"),
        )
    ]
    pooled, probe = found[2].config, found[4].config
    assert (pooled.data.silos.num, pooled.data.silos.by) == (1, None)
    assert pooled.train.batch_size == 3 * found[0].config.train.batch_size
    assert (probe.method.name, probe.privacy.target_epsilon) == ("head-only", 1)


def test_pooled_records_are_declared_as_all_of_them_together():
    each = {"harbour": 300, "university": 400, "village": 200}
    for declared, total in ((each, 900), (250, 750)):
        given = grid(beside=["pooled"], set={"data.num_examples": declared})
        assert cells(read_grid(given))[2].config.data.num_examples == total


def test_every_cell_has_the_same_budget_of_trials():
    tune = {"train.learning_rate": {"times_usual": [0.25, 1, 4]}, "train.momentum": [0.0, 0.9]}
    described = read_grid(grid(tune=tune))
    tried = [trials(described, cell) for cell in cells(described)]
    assert [len(of_cell) for of_cell in tried] == [6] * 4
    for cell, of_cell in zip(cells(described), tried, strict=True):
        usual = cell.at({"train.learning_rate": None}).usual_rate
        rates = sorted({settings["train.learning_rate"] for settings in of_cell})
        assert rates == [0.25 * usual, usual, 4 * usual]


def test_a_base_may_be_a_file(tmp_path):
    import yaml

    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    inline, of_file = (
        cells(read_grid(grid(base=base))) for base in (BASE, str(tmp_path / "base.yaml"))
    )
    for one, other in zip(inline, of_file, strict=True):
        assert one.config.method == other.config.method


EXAMPLES = Path(__file__).parents[2] / "examples" / "grids"
PAPER = EXAMPLES.parent / "paper" / "grids"


@pytest.mark.parametrize(
    "path",
    [*(EXAMPLES.glob("*.yaml")), *(PAPER.glob("*.yaml"))],
    ids=lambda path: path.stem,
)
def test_the_examples_are_grids_of_which_only_what_is_meant_to_be_is_refused(path, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parents[1])
    described = read_grid(path)
    found = cells(described)
    refused = [("fedftg", "every record")] if path.stem == "sharing" else []
    assert [tuple(c.labels.values()) for c in found if c.refusal] == refused
    tried = prod(map(len, described.tune.values())) if described.tune else 1
    assert all(len(trials(described, c)) == tried for c in found if not c.refusal)


def test_changes_win_over_the_file_and_what_the_grid_sets_itself_is_refused():
    given = grid(set={"privacy.max_grad_norm": 2.0, "data.limit": 5})
    changed = read_grid(given, ["seeds=[3, 4]", "limit=7", "model.pooling=mean"])
    assert changed.seeds == (3, 4)
    assert changed.set == {"privacy.max_grad_norm": 2.0, "limit": 7, "model.pooling": "mean"}
    assert all(cell.config.data.limit == 7 for cell in cells(changed))
    with pytest.raises(ConfigError) as refused:
        read_grid(
            grid(tune=RATES), ["method.r=4", "target_epsilon=3", "learning_rate=1", "no", "roads=1"]
        )
    assert [line.split(":")[0] for line in refused.value.problems] == [
        "method.r", "target_epsilon", "learning_rate", "no"
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="set: roads"):
        read_grid(given, ["roads=1"])


@pytest.mark.parametrize("name", [n for n, (given, _) in BAD.items() if "base" in given])
def test_what_is_wrong_is_named_where_changes_are_given_too(name):
    given, words = BAD[name]
    with pytest.raises(ConfigError) as error:
        read_grid(given, ["data.path=other.csv"])
    assert words in str(error.value)
