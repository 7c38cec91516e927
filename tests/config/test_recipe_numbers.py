"""A recipe is asked for before numbers are checked: none of them makes it stumble."""

import pytest

from silotune.config import ConfigError, load_config
from silotune.config.load import Written

BASE = {
    "defaults": "auto",
    "model": {"name_or_path": "x", "task": "sequence-classification"},
    "data": {"path": "n.csv", "silos": {"by": "silo"}, "columns": {"text": "t", "label": "l"}},
    "privacy": {"target_epsilon": 6, "target_delta": 1e-5},
}
BEYOND = "1" + "0" * 400


def test_an_epsilon_that_no_float_holds_is_refused_by_its_own_key():
    with pytest.raises(ConfigError, match=r"privacy\.target_epsilon: must be"):
        load_config(Written("base", BASE), [f"privacy.target_epsilon={BEYOND}"])


def test_the_smallest_epsilon_has_a_recipe():
    config = load_config(Written("base", BASE), ["privacy.target_epsilon=1.0e-320"])
    assert config.method.name == "ffa-lora"
