"""The words of the command line, and its exit codes."""

import errno
import json
import subprocess
import sys

import pytest
import typer

from covering import full
from silotune import __version__
from silotune.cli.errors import reported, sentences
from silotune.config import ConfigError
from silotune.engine import QuorumError
from silotune.methods import built_in

HEAVY = ("torch", "transformers", "datasets", "matplotlib", "scipy", "dp_accounting", "pydantic")


@pytest.mark.parametrize(
    ("words", "needed", "shows"),
    [
        (("--help",), [], "Private federated fine-tuning"),
        (("init", "new.yaml"), ["pydantic"], "wrote new.yaml"),
        full(("methods",), ["torch", "pydantic"], "ffa-lora"),
        (("doctor",), ["torch", "pydantic"], "no problems"),
    ],
)
def test_what_needs_no_model_imports_nothing_for_one(words, needed, shows, tmp_path):
    code = (
        f"import gc, sys; sys.argv = ['silotune', *{words}]\n"
        "from silotune.cli import main\n"
        "try: main()\n"
        f"finally: print([m for m in {HEAVY} if m in sys.modules], gc.get_threshold()[0] > 700)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    *_, imported = done.stdout.splitlines()
    assert (done.returncode, imported) == (0, f"{needed} True")
    assert shows in done.stdout + done.stderr


def test_version(silotune):
    result = silotune("--version")
    assert (result.exit_code, result.stdout.strip()) == (0, f"silotune {__version__}")


@pytest.mark.parametrize(
    "words",
    [["trian"], ["run"], ["run", "c.yaml", "--rounds", "3"], ["export", "run", "--format", "onnx"]],
)
def test_a_misspelt_command_is_2(silotune, words):
    assert silotune(*words).exit_code == 2


def test_every_verb_has_help_with_examples(silotune):
    for verb in ("init", "doctor", "plan", "data", "run", "evaluate", "export"):
        result = silotune(verb, "--help")
        assert result.exit_code == 0
        assert f"silotune {verb}" in result.stdout.partition("Examples:")[2]
    assert "worker" not in silotune("--help").stdout


def test_methods_are_the_catalogue(silotune):
    result = silotune("methods", "--json")
    found = {m["name"]: m for m in json.loads(result.stdout)}
    assert set(found) == set(built_in())
    assert found["ffa-lora"]["trained"] == ["B", "head"]
    assert found["fedit"]["shared"] == ["A", "B", "head"]
    assert "2403.12313" in found["ffa-lora"]["summary"]
    assert "head-only" in silotune("methods").stdout


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("train.seed: no"), "train.seed: no"),
        (QuorumError("round 3 needs"), "round 3 needs"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), "x: No space left on device"),
        (RuntimeError("CUDA out of memory. Tried"), "out of memory: lower train.per_device"),
        (MemoryError(), "out of memory: lower train.per_device"),
        (KeyError("x"), "KeyError: 'x'; this is a mistake in silotune"),
    ],
)
def test_every_error_is_a_sentence_and_1(error, line, capsys):
    @reported
    def verb() -> None:
        raise error

    with pytest.raises(typer.Exit) as exit_info:
        verb()
    assert exit_info.value.exit_code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line}")
    assert said.count("\n") == 1


def test_every_problem_of_a_configuration_has_its_line():
    assert sentences(ConfigError(["a: 1", "b: 2"])) == ["a: 1", "b: 2"]


def test_a_traceback_is_shown_to_who_asks(monkeypatch, capsys):
    monkeypatch.setenv("SILOTUNE_DEBUG", "1")

    @reported
    def verb() -> None:
        raise ValueError("no")

    with pytest.raises(typer.Exit):
        verb()
    assert "Traceback" in capsys.readouterr().err
