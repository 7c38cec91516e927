"""From a finished grid to a row of the table: the best of each block, and how sure it is."""

import pytest
from benchmarks.recipes import of_grid

from comparison.grids import BASE, RATES, Runner, grid
from silotune import compare


def made(given, folder, runner=None):
    return compare(given, folder, runner=runner or Runner())


def test_every_block_gives_its_best_with_what_it_ran_with(tmp_path):
    one, six = of_grid(made(grid(tune=RATES), tmp_path / "grid"))
    assert (one.facts.epsilon, six.facts.epsilon) == (1.0, 6.0)
    assert (six.facts.task, six.facts.unit) == ("sequence-classification", "example")
    assert six.facts.model == str(BASE["model"]["name_or_path"])
    assert six.method["name"] == "fedit"
    assert six.method["r"] == 2
    assert six.settings["train.learning_rate"] == 0.5, "what the trials have chosen"
    assert six.grid == "grid"
    assert six.measured.startswith("accuracy 81.2")
    assert "over 3 seeds, surely before method ffa (+5.0 ± 0.0)" in six.measured


def test_what_all_of_a_block_share_is_how_the_grid_was_made_and_no_recipe(tmp_path):
    shared = {"train.num_rounds": 8, "train.batch_size": 32, "train.tail_average": 0.25}
    axes = {
        "levers": {
            "without": {"method.name": "ffa-lora"},
            "all": {"method.name": "fedit", "model.head_bias": "frozen", "train.local_steps": 5},
        }
    }
    [row] = of_grid(made(grid(set=shared, axes=axes, baseline={}), tmp_path / "grid"))
    apart = {"model.head_bias", "train.local_steps", "train.learning_rate"}  # the usual rates
    assert row.settings.keys() - {"method"} == apart
    assert row.settings["model.head_bias"] == "frozen"


def test_what_the_head_reads_is_part_of_a_recipe(tmp_path):
    """Rates were found for it, and so were prototypes, which need the mean."""
    [one, _] = of_grid(made(grid(set={"model.pooling": "mean"}), tmp_path / "grid"))
    assert one.settings["model.pooling"] == "mean"
    [one, _] = of_grid(made(grid(), tmp_path / "other"))
    assert "model.pooling" not in one.settings, "the default"


def test_how_records_are_spread_is_not_public_so_blocks_of_it_are_one_row(tmp_path):
    spreads = {w: {"data.silos": {"num": 3, "split": w}} for w in ("iid", "dirichlet")}
    axes = {"method": {"fedit": {"method.name": "fedit"}, "ffa": {"method.name": "ffa-lora"}}}
    given = grid(axes={**axes, "spread": spreads}, baseline={"method": "fedit"})
    [row] = of_grid(made(given, tmp_path / "grid"))
    assert "over 3 seeds and 2 ways to spread records" in row.measured
    alone = {**axes, "spread": {"iid": spreads["iid"]}}
    [alone] = of_grid(made(grid(axes=alone, baseline={"method": "fedit"}), tmp_path / "other"))
    assert (row.settings, row.facts) == (alone.settings, alone.facts)


def test_a_group_without_all_of_its_seeds_is_no_recipe(tmp_path):
    def fails(config):
        return "too little memory" if config.method.name == "fedit" else ""

    rows = [*of_grid(made(grid(), tmp_path / "grid", Runner(fails=fails)))]
    assert {row.method["name"] for row in rows} == {"ffa-lora"}


def test_a_best_that_may_be_luck_says_so(tmp_path):
    same = {"a": {"method.name": "ffa-lora"}, "b": {"method.name": "ffa-lora", "method.r": 4}}
    [row] = of_grid(made(grid(axes={"method": same}, baseline={}), tmp_path / "grid"))
    assert "not surely before" in row.measured


def test_baselines_beside_are_no_recipes(tmp_path):
    rows = [*of_grid(made(grid(beside=["linear-probe"]), tmp_path / "grid"))]
    assert {row.method["name"] for row in rows} == {"fedit"}


@pytest.mark.parametrize("key", ["defaults", "method.name"])
def test_what_a_grid_has_made_is_taken(tmp_path, monkeypatch, key):
    from silotune.config import Written, load_config

    rows = [*of_grid(made(grid(), tmp_path / "grid"))]
    monkeypatch.setattr("silotune.config.recipe.recipes", lambda: rows)
    without = {name: value for name, value in BASE.items() if name != "method"}
    config = load_config(Written("base", without), [f"{key}=auto"])
    assert config.method.name == "fedit"
