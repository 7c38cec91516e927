from pathlib import Path

import pytest

from federation.small import write_small
from silotune.testing.tiny_models import tiny_bert


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def place(tmp_path, bert) -> Path:
    """A file with a small configuration; everything else is beside it."""
    return write_small(tmp_path, bert)
