import pytest

from silotune.methods import registry


@pytest.fixture(autouse=True)
def no_own_methods(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_OWN", {})
