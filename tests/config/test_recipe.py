"""Keys that are left to be chosen: what is written wins, the rest is written out, and why."""

import pytest

from silotune.config import (
    ConfigError,
    Written,
    build,
    differences,
    dump,
    load_config,
    notices,
    yaml,
)
from silotune.config import recipe as recipe_module
from silotune.config.overrides import apply
from silotune.config.recipe import facts_of
from silotune.config.schema import LEAVES
from silotune.methods.recipes import Facts, Recipe

FACTS = Facts(task="sequence-classification", unit="example", epsilon=6.0, labels=2, silos=3)
SETTINGS = {
    "method": {"name": "fed-sb", "r": 4},
    "model.head_bias": "frozen",
    "train.local_steps": 5,
    "train.server_optimizer": "momentum",
    "train.learning_rate": "auto",
    "train.tail_average": 0.5,
}
BASE = [
    "model={name_or_path: m, task: sequence-classification}",
    "data={path: d, columns: {text: t, label: l}, silos: {num: 3}, labels: [good, bad]}",
    "privacy={unit: example, target_epsilon: 6}",
]


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    found = [Recipe(facts=FACTS, settings=SETTINGS, measured="accuracy 82.5 %", grid="sst2")]
    monkeypatch.setattr(recipe_module, "recipes", lambda: found)
    return found


def test_all_keys_that_nobody_sets_are_the_recipes():
    config = load_config(None, [*BASE, "defaults=auto", "train.local_steps=7"])
    assert (config.method.name, config.method.given("r")) == ("fed-sb", 4)
    assert config.model.head_bias == "frozen"
    assert config.train.local_steps == 7, "what is written wins"
    assert config.train.learning_rate == "auto"
    assert config.train.tail_average == 0.5
    assert config.train.num_rounds == 20, "of what a recipe says nothing, the usual"


def test_a_method_alone_is_chosen_with_its_options():
    config = load_config(None, [*BASE, "method={name: auto, lora_alpha: 3}"])
    assert (config.method.name, config.method.given("r")) == ("fed-sb", 4)
    assert config.method.given("lora_alpha") == 3
    assert config.train.local_steps is None
    assert config.train.server_optimizer == "none"


def test_the_file_that_is_written_states_what_was_chosen_and_chooses_nothing_again(rows):
    config = load_config(None, [*BASE, "defaults=auto"])
    text = dump(config)
    assert "name: fed-sb" in text
    assert "defaults: usual" in text
    settings, _ = yaml.parse(text)
    rows.clear()
    again = load_config(Written("config.yaml", settings), of_run=True)
    assert differences(config, again) == []


@pytest.mark.parametrize(
    ("given", "key"), [("defaults=auto", "defaults"), ("method.name=auto", "method.name")]
)
def test_the_reason_is_told_with_the_run(given, key):
    federation = build(load_config(None, [*BASE, given, "train.learning_rate=0.5"]))
    [reason] = federation.reasons
    assert reason.startswith(f"{key}: method.name=fed-sb")
    assert "sst2: sequence-classification, unit example, epsilon 6, 2 labels, 3 silos" in reason
    assert "accuracy 82.5 %" in reason


def test_as_the_default_of_all_it_is_refused_nowhere(rows, monkeypatch):
    """One word in the schema makes every recipe a default; where there is none, the usual holds."""
    monkeypatch.setattr(LEAVES["defaults"], "default", "auto")
    assert load_config(None, BASE).method.name == "fed-sb"
    assert load_config(None, [*BASE, "defaults=usual"]).method.name == "ffa-lora"
    rows.clear()
    assert load_config(None, BASE).method.name == "ffa-lora"
    with pytest.raises(ConfigError, match=r"method\.name: nothing was measured"):
        load_config(None, [*BASE, "defaults=usual", "method.name=auto"])


def test_a_method_that_is_named_is_kept():
    with pytest.raises(ConfigError, match=r"defaults: nothing was measured of fedit for a"):
        load_config(None, [*BASE, "defaults=auto", "method.name=fedit"])


def test_where_nothing_was_measured_the_key_is_named(rows):
    rows.clear()
    with pytest.raises(ConfigError, match=r"override method.name=auto: method.name: nothing was"):
        load_config(None, [*BASE, "method.name=auto"])
    with pytest.raises(ConfigError, match=r"model.task"):
        load_config(None, ["model.name_or_path=m", "data.path=d", "method.name=auto"])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), {"epsilon": 6.0, "labels": 2, "silos": 3, "records": None}),
        (("data.num_examples={a: 30, b: 20}",), {"records": 20, "silos": 3}),
        (("data.num_examples=50", "data.silos={by: x}"), {"records": 50, "silos": None}),
        (("data.silos={by: x}", "data.num_examples={a: 30, b: 20}"), {"silos": 2}),
        (("privacy={unit: none}",), {"unit": "none", "epsilon": None}),
        (("data.labels=null",), {"labels": None}),
        ((), {"model": "m"}),
    ],
)
def test_facts_are_what_is_declared(overrides, expected):
    settings, wrong = apply({}, [*BASE, *overrides])
    assert not wrong
    found = facts_of(settings)
    assert {name: getattr(found, name) for name in expected} == expected


def test_nothing_is_said_where_nothing_is_chosen():
    config = load_config(None, BASE)
    assert config.reasons == ()
    assert not any("recipe" in notice for notice in notices(config))
