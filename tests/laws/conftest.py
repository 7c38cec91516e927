import pytest
import torch


@pytest.fixture(autouse=True)
def double_precision():
    """Laws are exact: they are checked in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
