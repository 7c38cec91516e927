"""A run whose frozen maps multiply in bfloat16 says so everywhere, and is read again."""

from pathlib import Path

import pytest

from by_config import evaluate, opened
from federation.small import NO_WORKER, small, train
from silotune.config.errors import ConfigError
from silotune.core import half_products
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder

HALF = "model.products=bfloat16"


def test_it_is_trained_scored_and_told(place, tmp_path, monkeypatch):
    monkeypatch.setattr(half_products, "speed_up", lambda device: 2.0)
    config = small(place, HALF, "train.num_rounds=2")
    records = train(config)
    run = RunFolder(Path(config.output_dir))
    assert evaluate(run, None).metrics == pytest.approx(records[-1].metrics, rel=1e-3)
    facts = read_facts(run)
    assert facts.host["products"] == "bfloat16"
    assert "frozen linear maps multiplied in bfloat16" in (run.adapter / "README.md").read_text()
    other = small(place, "train.num_rounds=2", f"output_dir={tmp_path / 'whole'}")
    with opened(other, [], NO_WORKER, resume=False) as job:
        assert job.facts.model_digest != facts.model_digest
        assert job.facts.host["products"] == "float32"


def test_a_run_goes_on_with_the_same_products_only(place, monkeypatch):
    monkeypatch.setattr(half_products, "speed_up", lambda device: 2.0)
    train(small(place, HALF), until=0)
    with pytest.raises(ConfigError, match=r'products \("bfloat16" -> "float32"\)'):
        train(small(place), resume=True)


def test_a_machine_that_gains_nothing_is_named_by_the_key(place, monkeypatch):
    monkeypatch.setattr(half_products, "speed_up", lambda device: 0.5)
    with pytest.raises(ConfigError, match=r"^model.products: this machine .*set it to float32"):
        train(small(place, HALF))
