"""Run folders for the tests of reports."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from reports.clinics import write_run
from silotune.runs.folder import RunFolder


@pytest.fixture
def fake_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """Write a run folder; every part can be replaced or left out."""
    return partial(write_run, tmp_path / "run")
