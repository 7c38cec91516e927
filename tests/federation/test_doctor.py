"""A checkup finds what is wrong, and goes on with what does not depend on it."""

import json
import shutil
from pathlib import Path

import pytest

import silotune
from by_config import configuration, divide, forecast, open_federation
from federation.small import PRIVATE, notes, small, write_csv
from silotune.config import ConfigError
from silotune.federation.environment import environment


def wrong(config) -> dict[str, str]:
    return {finding.what: finding.text for finding in configuration(config) if not finding.ok}


def test_a_sound_environment_and_configuration_have_no_problem(place):
    assert all(finding.ok for finding in environment())
    config = small(place, *PRIVATE)
    found = {finding.what: finding.text for finding in configuration(config)}
    assert wrong(config) == {}
    assert list(found) == ["output_dir", "device", "data", "model", "adapter", "privacy", "records"]
    assert "2 silos" in found["data"]
    assert "loads it, and computes the same" in found["adapter"]
    assert "; up to 32 tokens of each are read" in found["records"]
    assert not Path(config.output_dir).exists()


def test_broken_data_does_not_hide_a_broken_model(place):
    config = small(place, "data.path=./gone.csv", "model.name_or_path=./gone")
    assert set(wrong(config)) == {"data", "model"}


def test_a_model_whose_labels_only_the_data_knows_is_not_looked_at_without_it(place):
    config = small(place, "data.path=./gone.csv", "data.labels=null")
    assert set(wrong(config)) == {"data", "model"}
    assert "not looked at" in wrong(config)["model"]


def test_a_full_disk_is_found(place, monkeypatch):
    usage = shutil.disk_usage(place.parent)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "only 1 MB are free" in wrong(small(place))["output_dir"]


def test_delta_beyond_a_silo_is_found(place):
    write_csv(place.parent / "notes.csv", notes(300))
    config = small(place, "privacy={unit: example, noise_multiplier: 1, target_delta: 0.2}")
    assert "target_delta" in wrong(config)["privacy"]


def test_a_division_counts_what_is_there(place):
    found = divide(small(place))
    assert set(found.silos) == {"east", "west"}
    for name, silo in found.silos.items():
        assert silo.records + found.held_out[name] == 24, "each by a coin of its own"
        assert 0 < found.held_out[name] < silo.records
        assert sum(silo.labels.values()) == silo.records


def test_what_is_cut_is_counted_by_silo_for_those_who_may_see_it(place):
    config = small(place, "data.max_length=5")
    found = divide(config)
    assert {silo.truncated for silo in found.silos.values()} <= set(range(1, 25))
    cut = sum(silo.truncated for silo in found.silos.values())
    (notice,) = (text for text in found.notices if text.startswith("max_length: "))
    assert f" {cut} of " in notice
    texts = {finding.what: finding.text for finding in configuration(config)}
    assert f"max_length: {cut} of " in texts["records"]
    whole = divide(small(place, "data.max_length=60"))
    assert {silo.truncated for silo in whole.silos.values()} == {0}
    assert not any(text.startswith("max_length") for text in whole.notices)


def test_what_is_cut_is_published_in_a_simulation_only(place):
    def said(*words):
        notices = open_federation(small(place, "data.max_length=5", *words)).notices
        return [text for text in notices if text.startswith("max_length")]

    assert len(said()) == 1
    assert said("evaluation=site") == []


def test_a_length_that_the_model_does_not_read_is_refused_by_all_alike(place, bert, tmp_path):
    tokenizer = tmp_path / "unlimited"
    shutil.copytree(bert, tokenizer)
    file = tokenizer / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 10**30}))
    sizes = {"east": 20, "west": 20}
    config = small(
        place,
        f"model.name_or_path={tokenizer}",
        "data.max_length=200",
        f"data.num_examples={json.dumps(sizes)}",
    )
    text = "max_length: 200 is more than the 128 tokens that this model reads; set it to 128"
    assert text in wrong(config)["model"]
    for asked in (forecast, open_federation):
        with pytest.raises(ConfigError, match=f"data.{text}"):
            asked(config)
    federation = silotune.Federation(
        model=str(tokenizer),
        clients={"east": notes(), "west": notes()},
        objective=silotune.SequenceClassification(
            text="text", label="label", labels=["cat", "dog"], max_length=200
        ),
        privacy=silotune.NoDP(),
    )
    for refuse in (federation.plan, lambda: federation.fit(tmp_path / "run")):
        with pytest.raises(ValueError, match=r"^max_length: 200 .* set it to 128 or less"):
            refuse()
    assert not (tmp_path / "run").exists()
