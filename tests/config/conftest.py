from collections.abc import Callable
from pathlib import Path

import pytest

from silotune.config import Config, ConfigError, load_config

GOOD = """\
model:
  name_or_path: some/model
  task: sequence-classification
data:
  path: demo:triage
  columns: {text: note, label: department}
privacy:
  target_epsilon: 6
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A small file without a problem."""
    path = tmp_path / "small.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Config]:
    """Load a text with overrides."""

    def load_text(text: str, *overrides: str) -> Config:
        path = tmp_path / "c.yaml"
        path.write_text(text)
        return load_config(path, overrides)

    return load_text


@pytest.fixture
def wrong(load: Callable[..., Config], tmp_path: Path) -> Callable[..., list[str]]:
    """The problems of a text with overrides, without the folder of the file."""

    def problems(text: str, *overrides: str) -> list[str]:
        with pytest.raises(ConfigError) as error:
            load(text, *overrides)
        lines = [line.replace(f"{tmp_path}/", "") for line in error.value.problems]
        assert str(error.value) == "\n".join(error.value.problems)
        assert not any("\n" in line for line in lines)
        return lines

    return problems
