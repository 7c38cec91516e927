from contextlib import suppress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from covering import examples
from silotune.config import ConfigError, dropped, load_config
from silotune.config.overrides import read
from silotune.config.schema import LEAVES
from silotune.config.yaml import Dumper

BASE = [
    "model={name_or_path: m, task: sequence-classification}",
    "data={path: hub/name, columns: {text: t, label: l}}",
    "privacy.target_epsilon=6",
]
HEAD = """\
model: {name_or_path: m, task: sequence-classification}
data: {path: hub/name, columns: {text: t, label: l}, silos: {by: c}}
privacy: {target_epsilon: 6}
train: {num_server_rounds: 3}
"""


def get(config, key):
    for part in key.split("."):
        config = getattr(config, part)
    return config


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.num_rounds=5", "train.num_rounds", 5),
        ("num_server_rounds=5", "train.num_rounds", 5),
        ("seed=5", "train.seed", 5),
        ("privacy.target_delta=1e-6", "privacy.target_delta", 1e-6),
        ("train.learning_rate=8", "train.learning_rate", 8.0),
        ("train.min_clients=null", "train.min_clients", None),
        ("method.use_rslora=true", "method.use_rslora", True),
        ("method.target_modules=[query, value]", "method.target_modules", ("query", "value")),
        ("method.target_modules=all-linear", "method.target_modules", "all-linear"),
        (r"method.target_modules=.*\.(q|v)_proj", "method.target_modules", r".*\.(q|v)_proj"),
        ("data.path=demo:triage", "data.path", "demo:triage"),
        ("data.path=../folder/with=sign", "data.path", "../folder/with=sign"),
        (" train.seed = 4", "train.seed", 4),
        ("data.silos={num: 3, split: quantity}", "data.silos.by", None),
        ("data.silos={num: 3, split: quantity}", "data.silos.num", 3),
        ("data.silos=null", "data.silos.by", None),
        ("data.silos.num=3", "data.silos.by", None),
        ("privacy.unit=none", "privacy.target_epsilon", None),
        ("privacy.noise_multiplier=2", "privacy.target_epsilon", None),
    ],
)
def test_override(load, override, key, value):
    assert get(load(HEAD, override), key) == value


def test_later_ones_win_over_earlier_ones_and_the_file(load):
    assert load(HEAD, "num_rounds=5", "train.num_rounds=7").train.num_rounds == 7
    assert load(HEAD, "train.num_rounds=7", "num_server_rounds=5").train.num_rounds == 5


def test_a_whole_section_replaces_and_a_key_after_it_counts(load):
    config = load(HEAD, "data.silos={num: 3}", "data.silos.num=4")
    assert config.data.silos.num == 4


def test_what_cannot_hold_beside_an_override_is_dropped_from_the_file_alone(load, wrong):
    dealt = HEAD.replace("{by: c}", "{num: 3, split: dirichlet, alpha: 1}")
    assert load(dealt, "data.silos.by=c").data.silos.num is None
    counted = HEAD.replace("{target_epsilon: 6}", "{target_epsilon: 6, count_noise: 50}")
    assert load(counted, "privacy.unit=none").privacy.count_noise is None
    (problem,) = wrong(HEAD, "privacy.target_epsilon=6", "privacy.unit=none")
    assert "privacy.target_epsilon: has no effect with privacy.unit: none" in problem


@pytest.mark.parametrize(
    ("overrides", "lost"),
    [
        (["privacy.unit=none"], ["privacy.target_epsilon (c.yaml:3)"]),
        (["data.silos.num=3", "data.silos.split=iid"], ["data.silos.by (c.yaml:2)"]),
        (["privacy={noise_multiplier: 2}"], ["privacy.target_epsilon (c.yaml:3)"]),
        (["train=null", "train.seed=1"], ["train.num_server_rounds (c.yaml:4)"]),
        (["train={num_rounds: 5}", "privacy.target_epsilon=1", "data.silos.by=d"], []),
    ],
)
def test_what_overrides_drop_is_known_by_its_place(load, tmp_path, overrides, lost):
    load(HEAD, *overrides)
    found = dropped(tmp_path / "c.yaml", overrides)
    assert [line.replace(f"{tmp_path}/", "") for line in found] == lost


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.seed", "write key=value"),
        ("=3", "write key=value"),
        ("train.sed=3", "train.sed: unknown key; did you mean train.seed?"),
        ("train={sed: 3}", "train.sed: unknown key; did you mean train.seed?"),
        ("train=3", "train: is a section"),
        ("train.seed=[3", "the value is not YAML"),
        ("train.seed=x", 'train.seed: must be a whole number, not "x"'),
        ("name=x", "write data.name or method.name"),
    ],
)
def test_bad_override(wrong, override, said):
    (problem,) = wrong(HEAD, override)
    assert problem.startswith(f"override {override}: ")
    assert said in problem


def test_messages_stay_on_one_short_line(wrong):
    (problem,) = wrong(HEAD, "seed=1" + "0" * 5000)
    assert "the value is not YAML" in problem
    assert len(problem) < 300
    wrong(HEAD, "train.x\ny=1")


SMALL = {
    "train.num_rounds": st.integers(1, 10**6),
    "train.learning_rate": st.floats(1e-300, 1e300),
    "privacy.target_delta": st.floats(1e-10, 0.99),
    "train.min_clients": st.none() | st.integers(1, 99),
    "method.use_rslora": st.booleans(),
    "model.name_or_path": st.text(min_size=1),
    "data.columns.text": st.text(min_size=1),
    "method.target_modules": st.none() | st.lists(st.text(min_size=1), min_size=1).map(tuple),
    "data.labels": st.lists(st.text(min_size=1), min_size=2, unique=True).map(tuple),
    "train.optimizer": st.sampled_from(["sgd", "adamw"]),
}


@examples(20, 60)
@given(st.data())
def test_any_value_written_as_yaml_arrives(data):
    key = data.draw(st.sampled_from(sorted(SMALL)))
    value = data.draw(SMALL[key])
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.dump(plain, Dumper=Dumper, default_flow_style=True, width=10**6)
    config = load_config(None, [*BASE, f"{key}={text}"])
    assert get(config, key) == value


@examples(20, 60)
@given(st.lists(st.text() | st.builds("{}={}".format, st.sampled_from(sorted(LEAVES)), st.text())))
def test_anything_else_is_a_config_error(overrides):
    with suppress(ConfigError):
        load_config(None, [*BASE, *overrides])


@examples(20, 50)
@given(st.lists(st.integers(0, 999), min_size=1), st.sampled_from(["seed", "train.seed"]))
def test_the_last_one_wins(values, name):
    config = load_config(None, [*BASE, *(f"{name}={value}" for value in values)])
    assert config.train.seed == values[-1]


def test_read():
    assert read("a.b=[1, x]").value == [1, "x"]
    assert read("a=").value is None
    with pytest.raises(ValueError, match="put it in quotes"):
        read("a=@b")


@pytest.mark.parametrize("word", [r"\t", r'"\t"', r"'\t'"])
def test_a_tab_may_be_written_as_its_escape(word):
    assert load_config(None, [*BASE, f"data.delimiter={word}"]).data.delimiter == "\t"


def test_a_key_that_nobody_gave_is_not_blamed_on_an_override_of_another(wrong):
    """The rule for a rate wants a key that neither the file nor an override has."""
    asked = ["train.optimizer=sgd", "train.learning_rate=auto", "train.eval_every=2"]
    [problem] = [p for p in wrong(HEAD, *asked) if "train.server_optimizer: " in p]
    assert not problem.startswith("override")
    with pytest.raises(ConfigError, match=r"^configuration: train\.server_optimizer: "):
        load_config(None, [*BASE, *asked])
