from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import typer.testing
from typer.testing import CliRunner, Result

from federation.small import write_small
from silotune.cli import app
from silotune.testing.tiny_models import tiny_bert

Silotune = Callable[..., Result]

typer.testing._get_command = cache(typer.testing._get_command)  # all verbs, made for each call


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def place(tmp_path, bert, monkeypatch) -> Path:
    """The current folder, with a small configuration, ``small.yaml``."""
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path, bert)
    return tmp_path


@pytest.fixture
def silotune() -> Silotune:
    """The command, in this process. Nothing it says is a traceback."""

    def run(*words: str) -> Result:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run
