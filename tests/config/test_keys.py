import pytest

from silotune.config.keys import ABSENT, ALIASES, SPELLINGS, unknown
from silotune.config.schema import LEAVES, SECTIONS


def test_every_alias_leads_home():
    assert set(ALIASES.values()) <= set(LEAVES)
    assert set(SPELLINGS.values()) == set(LEAVES)


def test_no_alias_hides_a_key():
    assert all(SPELLINGS[key] == key for key in LEAVES)
    assert not set(SPELLINGS) & set(SECTIONS)


def test_flat_names():
    assert SPELLINGS["target_epsilon"] == "privacy.target_epsilon"
    assert SPELLINGS["r"] == "method.r"
    assert "name" not in SPELLINGS
    assert "by" not in SPELLINGS


@pytest.mark.parametrize(
    ("key", "home"),
    [
        ("train.num_round", "train.num_rounds"),
        ("trian.num_rounds", "train.num_rounds"),
        ("train.target_epsilon", "privacy.target_epsilon"),
        ("epsilon", "privacy.target_epsilon"),
        ("data.lable", "data.columns.label"),
        ("lora_rank", "method.r"),
        ("modle.task", "model.task"),
        ("silos", "data.silos"),
        ("metod", "method"),
        ("num_server_round", "train.num_rounds"),
        ("TRAIN.SEED", "train.seed"),
    ],
)
def test_did_you_mean(key, home):
    assert unknown(key) == f"unknown key; did you mean {home}?"


def test_nothing_similar_lists_what_there_is():
    assert unknown("train.lr").startswith("unknown key; there are train.num_rounds, ")
    assert unknown("xyzzy").startswith("unknown key; there are model, data, ")
    assert "data.silos.by, data.silos.num" in unknown("data.silos.zz")


@pytest.mark.parametrize("key", ABSENT)
def test_what_others_have_and_we_have_not_is_said_why(key):
    for written in (key, f"train.{key}"):
        assert unknown(written) == f"there is no such key: {ABSENT[key]}"
    assert not {key, f"train.{key}"} & set(SPELLINGS)
    for word in ABSENT[key].replace(",", " ").replace(")", " ").replace("(", " ").split():
        assert "." not in word or word in LEAVES, "keys that it names are there"
