"""A configuration of sites: what it needs, what it must not say, and that it comes back."""

import pytest

from silotune import ExampleDP, Sites
from silotune.config import ConfigError, build, digest, dump, load_config
from silotune.federation.members import Members

SITES = [
    "model={name_or_path: a/b, task: sequence-classification}",
    "data={columns: {text: note, label: kind}, labels: [a, b]}",
    "federation={sites: [north, east], kit: fed}",
    "privacy={unit: example, target_epsilon: 6, target_delta: 1e-5}",
    "evaluation=site",
    "runtime=folder",
]


@pytest.fixture(autouse=True)
def kit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Members.create(tmp_path / "fed", ["north", "east"], coordinator="lead")


def test_it_is_a_federation_of_sites():
    federation = build(load_config(None, [*SITES, "train.wait_after_quorum=5"]))
    assert federation.records.clients == Sites(("east", "north"))
    assert isinstance(federation.terms.privacy, ExampleDP)
    assert (federation.coordinator, federation.wait_after_quorum) == ("lead", 5)


def test_what_is_written_beside_the_result_says_the_same(tmp_path):
    config = load_config(None, SITES)
    file = tmp_path / "config.yaml"
    file.write_text(dump(config))
    again = load_config(file, [])
    assert again == config
    assert digest(again) == digest(config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("runtime=pool", "runtime: pool is for one machine"),
        (
            "runtime=ray",
            "runtime: Ray lets every member .* never between organisations; sites need",
        ),
        ("evaluation=simulation", "evaluation: simulation looks at every silo"),
        ("data.silos={num: 3}", "data.silos: is of a site's own records"),
        ("data.limit=3", "data.limit: is of a site's own records"),
        ("data.splits.train=x.csv", "data.splits.train: nothing is trained on here"),
        ("federation.kit=null", "federation.kit: name the folder"),
        ("federation.sites=[]", "federation.sites: runtime: folder is for sites"),
    ],
)
def test_what_it_must_not_say(change, words):
    with pytest.raises(ConfigError, match=words):
        load_config(None, [*SITES, change])


def test_without_sites_the_data_have_a_place():
    with pytest.raises(ConfigError, match=r"data\.path: is missing; set it"):
        load_config(None, [SITES[0], "data={columns: {text: t, label: l}}"])
