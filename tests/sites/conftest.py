import pytest

from silotune.testing.tiny_models import tiny_bert


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("site-models") / "bert")
