"""A rehearsal has a base on every machine, and says when it is not the one that was named."""

import json

import pytest

from silotune.models import hub
from silotune.models.hub import MINILM, files_digest
from silotune.testing.stand_in import base_for


@pytest.fixture
def no_models(monkeypatch):
    """Nothing was ever downloaded here, and no package brings a model."""
    monkeypatch.setattr(hub, "_packaged_minilm", lambda: None)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: None)


def test_a_made_up_model_stands_in_for_minilm_and_is_said(no_models, no_network, tmp_path):
    base = base_for(MINILM, tmp_path / "base")
    assert f"{MINILM} is not on this machine" in base.said
    assert len(files_digest(base.name)) == 64
    made = json.loads((tmp_path / "base" / "config.json").read_text())
    assert made["num_hidden_layers"] == 6


def test_of_another_model_nobody_knows_what_it_is_like(no_models, no_network, tmp_path):
    with pytest.raises(ValueError, match=r"model\.name_or_path: .* of acme/large none are on this"):
        base_for("acme/large", tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_a_model_that_is_here_is_the_base_itself(folders, tmp_path):
    base = base_for(str(folders["bert"]), tmp_path / "base")
    assert (base.name, base.said) == (str(folders["bert"]), "")
    assert not (tmp_path / "base").exists()
