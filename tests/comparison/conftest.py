from pathlib import Path

import pytest

from comparison.grids import SILOS
from federation.small import notes, write_csv, write_small
from silotune.comparison import results
from silotune.testing.tiny_models import tiny_bert


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(autouse=True)
def _page(request, monkeypatch) -> None:
    """Pages have no pictures, which take a second, but for tests that ask for ``drawn``."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(results, "comparison_page", lambda comparison: "a page")


@pytest.fixture(scope="session")
def _records(tmp_path_factory) -> Path:
    """A folder with what grids here are of."""
    folder = tmp_path_factory.mktemp("records")
    parts = {"train": notes(12, SILOS), "test": notes(4, SILOS, seed=1)}
    rows = [{**note, "split": part} for part, found in parts.items() for note in found]
    write_csv(folder / "notes.csv", rows)
    return folder


@pytest.fixture(autouse=True)
def _here(_records, monkeypatch) -> None:
    monkeypatch.chdir(_records)


@pytest.fixture
def place(tmp_path, bert, monkeypatch) -> Path:
    """The current folder, with a small configuration, ``small.yaml``."""
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path, bert)
    return tmp_path
