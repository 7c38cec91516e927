import pytest


@pytest.fixture(autouse=True)
def _exact(double_precision) -> None:
    """Laws are exact: they are checked in float64."""
