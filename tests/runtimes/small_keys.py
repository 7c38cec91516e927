"""RSA keys for FLARE's certificates are dear to make; small ones are not, and do for letters."""

import pytest

from silotune.runtimes import nvflare_certificates


@pytest.fixture
def small_keys(monkeypatch) -> None:
    monkeypatch.setattr(nvflare_certificates, "BITS", 1024)
