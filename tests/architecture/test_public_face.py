"""What users may rely on: ``silotune.__all__`` and the verbs. All else is private.

A change of these lists is a change for users: say it in CHANGELOG.md.
"""

import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import silotune

NAMES = [
    "About",
    "Adapter",
    "Aggregator",
    "CausalLM",
    "ClientDP",
    "Combined",
    "Compared",
    "ExampleDP",
    "Factors",
    "Federation",
    "ImageClassification",
    "Key",
    "Lifetime",
    "LoRA",
    "LoadedModel",
    "Method",
    "MultiLabelClassification",
    "MultiLabelImageClassification",
    "NoDP",
    "Objective",
    "Partition",
    "Plan",
    "PrivacyEngine",
    "QuorumError",
    "Regression",
    "Role",
    "Run",
    "Schedule",
    "Seq2Seq",
    "SequenceClassification",
    "Site",
    "Sites",
    "Splits",
    "TextEmbedding",
    "TokenClassification",
    "__version__",
    "adapt",
    "adapters",
    "adopt",
    "aggregation",
    "compare",
    "load",
    "lora_params",
    "methods",
    "objectives",
    "optim",
    "register",
    "schedules",
    "testing",
    "verify",
]

VERBS = {
    "init",
    "doctor",
    "plan",
    "data",
    "run",
    "compare",
    "report",
    "federation",
    "site",
    "evaluate",
    "export",
    "predict",
    "generate",
    "eva",
    "methods",
    "audit",
    "privacy",
}


def test_these_are_the_public_names():
    assert sorted(silotune.__all__) == sorted(NAMES)
    assert set(dir(silotune)) == set(NAMES)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "__version__"])
def test_every_name_is_there_and_says_what_it_is(name):
    thing = getattr(silotune, name)
    told = (inspect.getdoc(thing) or "").strip()
    inherited = {inspect.getdoc(base) for base in getattr(thing, "__mro__", ())[1:]}
    assert told
    assert told not in inherited
    if not isinstance(thing, ModuleType):
        assert thing.__module__.startswith("silotune.")


def test_another_name_is_an_error():
    with pytest.raises(AttributeError, match="no attribute 'Federatoin'"):
        silotune.Federatoin  # noqa: B018


def test_importing_it_takes_no_time():
    program = """
import sys, silotune
heavy = {"torch", "transformers", "datasets", "numpy", "pydantic", "matplotlib", "rich", "scipy"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_command_line_has_these_verbs():
    import typer

    from silotune.cli import app

    commands = typer.main.get_command(app).commands
    assert {name for name, command in commands.items() if not command.hidden} == VERBS
