import shutil
from pathlib import Path

import pytest

from federation.small import PRIVATE, small, train, write_small
from silotune.testing.tiny_models import tiny_bert


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def place(tmp_path, bert) -> Path:
    """A file with a small configuration; everything else is beside it."""
    return write_small(tmp_path, bert)


@pytest.fixture(scope="session")
def ended(tmp_path_factory, bert) -> Path:
    """Where a private run of three rounds was finished, in ``run``."""
    place = write_small(tmp_path_factory.mktemp("ended"), bert)
    train(
        small(place, *PRIVATE, "privacy.lifetime=off")
    )  # copies of it are changed and gone on with
    return place.parent


@pytest.fixture
def finished(ended, tmp_path) -> Path:
    """A copy of that run, to tamper with."""
    return shutil.copytree(ended / "run", tmp_path / "run")
