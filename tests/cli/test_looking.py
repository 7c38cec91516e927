"""The verbs that only look: init, doctor, plan, data."""

import json
import os
import sys
from pathlib import Path

import pytest

from covering import every_method, full
from federation.small import PRIVATE
from silotune.config import load_config
from silotune.methods import built_in, registry


def test_init_writes_a_configuration_that_is_valid_and_never_overwrites(silotune, place):
    result = silotune("init")
    assert result.exit_code == 0
    assert "silotune plan triage.yaml" in result.stdout
    assert load_config(Path("triage.yaml")).data.path == "demo:triage"
    Path("triage.yaml").write_text("mine")
    result = silotune("init")
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert Path("triage.yaml").read_text() == "mine"


def test_init_takes_a_file_a_folder_or_a_name(silotune, place):
    Path("folder").mkdir()
    assert silotune("init", "deep/mine.yaml").exit_code == 0
    assert silotune("init", "folder").exit_code == 0
    assert Path("deep/mine.yaml").read_bytes() == Path("folder/triage.yaml").read_bytes()
    result = silotune("init", "--example", "nothing")
    assert result.exit_code == 2
    assert "triage" in result.stderr


def test_doctor_without_a_configuration(silotune, place):
    result = silotune("doctor", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["ok"]) == (0, True)
    assert {"python", "packages", "device"} <= {finding["what"] for finding in found["findings"]}


def test_doctor_names_every_problem_and_exits_1(silotune, place):
    assert silotune("doctor", "small.yaml").exit_code == 0
    result = silotune(
        "doctor", "small.yaml", "data.path=./gone.csv", "method.target_modules=[querry]"
    )
    assert result.exit_code == 1
    problems = [line for line in result.stdout.splitlines() if line.startswith("problem")]
    assert len(problems) == 2
    assert "gone.csv" in problems[0]
    assert "did you mean query" in problems[1]
    result = silotune("doctor", "small.yaml", "train.num_round=3")
    assert result.exit_code == 1
    assert "did you mean" in result.stdout


def test_plan_in_words_and_for_scripts(silotune, place):
    result = silotune("plan", "small.yaml", *PRIVATE)
    assert result.exit_code == 0
    for words in ("noise / signal", "east", "keeps 71% of that noise", "bytes:"):
        assert words in result.stdout
    result = silotune("plan", "small.yaml", *PRIVATE, "--json")
    plan = json.loads(result.stdout)
    assert [silo["silo"] for silo in plan["silos"]] == ["east", "west"]
    assert len(plan["epsilon"]["east"]) == plan["rounds"] == 3
    assert not Path("run").exists()


def test_what_an_override_drops_from_the_file_is_said_on_one_line(silotune, place):
    result = silotune("plan", "small.yaml", "data.silos.num=2", "--json")
    assert result.stderr.startswith("notice: overrides drop from the file: data.silos.by (")
    assert f"{Path('small.yaml')}:" in result.stderr
    assert "data.silos.by" not in silotune("plan", "small.yaml", "train.num_rounds=2").stderr


@pytest.mark.parametrize("noise", ["gaussian", "correlated"])
def test_plan_under_client_level_privacy_speaks_of_clients(silotune, place, noise):
    sampling = {"gaussian": "poisson", "correlated": "rotation"}[noise]
    result = silotune(
        "plan",
        "small.yaml",
        "privacy={unit: client, target_epsilon: 8, target_delta: 0.01}",
        "train.weighting=uniform",
        "data.num_examples=20",
        f"privacy.noise={noise}",
        f"privacy.sampling={sampling}",
    )
    assert result.exit_code == 0
    for words in ("for every client", "clipped changes", "clients  "):
        assert words in result.stdout
    for words in ("each silo", "declared records", "clipped gradients"):
        assert words not in result.stdout
    assert ("1 round in reserve" in result.stdout) == (noise == "gaussian")
    assert ("cancels in the sum" in result.stdout) == (noise == "correlated")


def test_plan_of_a_bundled_configuration_reads_no_file(silotune, place, bert):
    shape = (f"model.name_or_path={bert}", "method.r=2", "method.layers_to_transform=null")
    noise = ("privacy.target_epsilon=null", "privacy.noise_multiplier=1")
    result = silotune("plan", "triage", *shape, *noise)
    assert result.exit_code == 0, result.output
    assert "university" in result.stdout


def test_data_as_a_table_and_a_picture(silotune, place):
    result = silotune("data", "small.yaml", "--picture", "data.svg")
    assert result.exit_code == 0
    assert "epsilon does not cover" in result.stdout
    assert Path("data.svg").read_text().startswith("<svg")
    found = json.loads(silotune("data", "small.yaml", "--json").stdout)
    assert found["covered_by_epsilon"] is False
    records = found["silos"]["west"]["records"]
    assert 0.7 * 24 < records < 24, "each is held out by a coin of its own"
    assert sum(found["silos"]["west"]["labels"].values()) == records
    assert silotune("data", "small.yaml", "--picture", "data.png").exit_code == 2


def test_methods_lists_the_catalogue_and_what_it_refuses(silotune, place):
    result = silotune("methods")
    assert result.exit_code == 0
    for name in built_in():
        assert f"\n  {name} " in result.stdout
    assert "fedftg, privacy.unit: example: direct averaging of dense deltas" in result.stdout
    found = {entry["name"]: entry for entry in json.loads(silotune("methods", "--json").stdout)}
    assert list(found) == list(built_in())
    assert found["rolora"]["trains"] == "B, head; then A, head"
    assert found["fedsa-lora"]["sends"] == "A"
    assert found["lora-fair"]["options"]["fair_lambda"] == 0.01
    assert {name for name, entry in found.items() if entry["refused"]} == {
        "fedftg",
        "fedsa-lora",
        "hetlora",
        "milora",
    }
    assert {name for name, entry in found.items() if entry["ranks_may_differ"]} == {
        "flora",
        "flexlora",
        "hetlora",
        "xgblora",
    }


def test_methods_counts_what_each_sends_on_a_model(silotune, place, bert):
    result = silotune("methods", "--costs", bert, "--r", "4")
    assert result.exit_code == 0
    assert "4 layers of 32 x 32, r = 4, 3 clients" in result.stdout
    for name in built_in():
        assert (f"\n  {name} " in result.stdout) == (name != "head-only")
    found = json.loads(silotune("methods", "--costs", bert, "--r", "4", "--json").stdout)
    numbers = 4 * 4 * 32 * 4  # layers, rank, features, bytes
    sent = {name: cost["usual"] for name, cost in found["methods"].items()}
    assert numbers < sent["ffa-lora"]["up"] < numbers + 2000
    assert 2 * numbers < sent["fedit"]["up"] < 2 * numbers + 3000
    assert 6 * numbers < sent["flora"]["down"] < 6 * numbers + 4000
    assert found["methods"]["flora"]["first"]["down"] < 3000, "seeds alone"
    assert found["head"]["up"] == pytest.approx(4 * (2 * 32 + 2), abs=200)


def test_methods_says_what_is_wrong_with_a_model_or_rank(silotune, place, bert):
    result = silotune("methods", "--costs", "./nowhere")
    assert result.exit_code == 1
    assert "there is no folder ./nowhere" in result.stderr
    result = silotune("methods", "--costs", bert, "--r", "64")
    assert result.exit_code == 1
    assert "method.r: " in result.stderr
    assert silotune("methods", "--costs", bert, "--clients", "0").exit_code == 2


@every_method(lambda method: method != "mole", (1, 2))  # see test_mole
def test_every_method_can_be_planned(silotune, place, method):
    result = silotune("plan", "small.yaml", f"method.name={method}", "train.optimizer=null")
    assert result.exit_code == 0, result.output
    assert "bytes: " in result.stdout


@pytest.mark.parametrize("runtime", ["in-process", full("pool")])
def test_a_method_of_ones_own_runs_and_its_folder_brings_in_no_code(
    silotune, place, monkeypatch, runtime
):
    """In a pool as well, whose workers are told its name; from a folder only if it is named."""
    monkeypatch.setattr(registry, "_OWN", {})
    (place / "clinic_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), *sys.path[1:]]))
    own = "clinic_own:Own"
    result = silotune("run", "small.yaml", f"method.name={own}", f"runtime={runtime}", "workers=1")
    assert result.exit_code == 0, result.output
    assert "Own LoRA" in Path("run/report.html").read_text()
    monkeypatch.setattr(registry, "_OWN", {})
    result = silotune("evaluate", "run")
    assert result.exit_code == 1
    assert f"silotune --method-class {own}" in result.stderr
    for name in ("run", "run/config.yaml"):
        result = silotune("plan", name)
        assert result.exit_code == 1
        assert f"silotune --method-class {own}" in result.stderr
    result = silotune("--method-class", own, "evaluate", "run")
    assert result.exit_code == 0, result.output


OWN = '''
"""One's own."""

from dataclasses import dataclass
from typing import ClassVar

from silotune.methods import FFALoRA


@dataclass(frozen=True, kw_only=True)
class Own(FFALoRA):
    """Own LoRA (nobody): FFA-LoRA."""

    name: ClassVar[str] = "own"
    title: ClassVar[str] = "Own LoRA"
'''
