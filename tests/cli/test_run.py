"""``run``, ``evaluate`` and ``export``, as a user types them."""

import errno
import json
import os
import signal
from io import StringIO

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import silotune.core.files as files
import silotune.privacy.ledger.store as store
from covering import some
from federation.small import BUDGET, PRIVATE, charge_again, notes, write_csv
from silotune.cli.progress import Watch, watch_rounds
from silotune.core.files import read_json, read_lines
from silotune.runs.facts import read_facts
from silotune.runs.folder import RoundRecord, RunFolder
from silotune.runs.lock import held
from silotune.runs.standing import standing
from silotune.signals import heard

ONE = "train.num_rounds=1"
SIZE = "data.num_examples=20"


def test_a_run_tells_what_it_does_and_ends_with_what_came_of_it(silotune, place, no_network):
    result = silotune("run", "small.yaml", "baselines=[silo-alone]", "--json")
    assert result.exit_code == 0
    said = result.stderr.splitlines()
    assert "2 silos, 3 rounds of 2 steps (sgd, learning rate 0.5)" in said[1]
    assert any("privacy.unit: none" in line for line in said)
    assert [line.split()[1] for line in said if line.startswith("round")] == [
        "0/3",
        "1/3",
        "2/3",
        "3/3",
    ]
    assert any(line.startswith("evaluate: silotune evaluate") for line in said)
    found = json.loads(result.stdout)  # one line, for a script
    assert found["status"] == "finished"
    assert found["after"] is not None
    assert [silo["silo"] for silo in found["silos"]] == ["east", "west"]
    assert all(0 <= silo["alone"] <= 1 for silo in found["silos"])
    assert (place / "run" / "report.html").is_file()


def test_a_result_worse_than_the_start_is_said_everywhere(silotune, place):
    """All that trains has one label, and all that scores the other."""
    (place / "data").mkdir()
    for name, label, silos in (("train", "cat", ("east", "west")), ("valid", "dog", ("v",))):
        write_csv(place / "data" / f"{name}.csv", [n | {"label": label} for n in notes(8, silos)])
    result = silotune(
        "run", "small.yaml", "data.path=./data", "evaluation=public", "data.valid_fraction=0", ONE
    )
    assert result.exit_code == 0
    words = "Worse than before training: accuracy went from 50.0 % to 0.0 %"
    assert words in result.stdout
    assert read_json(place / "run" / "run.json")["worse_than_before"] is True
    assert "finished, worse than before training" in (place / "run" / "report.html").read_text()
    assert words in (place / "run" / "adapter" / "README.md").read_text()


@pytest.mark.usefixtures("drawn")
def test_a_private_run_shows_epsilon_and_budget(silotune, place):
    result = silotune("run", "small.yaml", *BUDGET)
    assert result.exit_code == 0
    assert " of 8" in result.stdout
    assert "budget ε = 8" in result.stdout
    assert read_json(place / "run" / "privacy.json")["overall"]["epsilon"] <= 8


def test_a_run_that_hides_clients_shows_its_noise_and_no_time(silotune, place):
    privacy = "privacy={unit: client, noise_multiplier: 2, target_delta: 0.01}"
    result = silotune("run", "small.yaml", privacy, "train.weighting=uniform", SIZE, ONE)
    assert result.exit_code == 0
    said = result.stdout.splitlines()
    assert said[2] == "  every client: hidden by the server, noise multiplier σ = 2, δ = 0.01"
    [total] = [line for line in said if "after 1 round" in line]
    assert " s, " not in total
    assert "round (" in total
    [done] = [line for line in said if line.startswith("round 1/1")]
    assert done.endswith(" down"), "no time, and no guess at what is left"
    found = json.loads(
        silotune(
            "run", "small.yaml", privacy, "train.weighting=uniform", SIZE, ONE, "--resume", "--json"
        ).stdout
    )
    assert found["seconds"] is None


def test_output_dir_is_taken_as_it_is_written(silotune, place):
    odd = "runs/a: b #1"
    assert silotune("run", "small.yaml", ONE, "--output-dir", odd).exit_code == 0
    assert (place / odd / "adapter").is_dir()


def test_a_finished_run_is_not_trained_again(silotune, place):
    silotune("run", "small.yaml", ONE)
    before = (place / "run" / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    result = silotune("run", "small.yaml", ONE, "--resume")
    assert result.exit_code == 0
    assert "finished already" in result.stdout
    result = silotune("run", "run", "--resume")  # the folder stands for its configuration
    assert "finished already" in result.stdout
    assert (place / "run" / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == before


def test_an_interrupted_run_says_how_to_go_on(silotune, place, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("silotune.cli.run.watch_rounds", interrupt)
        result = silotune("run", "small.yaml", ONE)
    assert result.exit_code == 130
    assert f"silotune run {place / 'run'} --resume" in result.stdout
    assert read_json(place / "run" / "run.json")["status"] == "stopped: interrupted"
    assert silotune("run", place / "run", "--resume").exit_code == 0
    assert read_json(place / "run" / "run.json")["status"] == "finished"


def test_a_loss_that_is_not_finite_fails_in_words_and_keeps_the_folder(silotune, place):
    result = silotune("run", "small.yaml", "train.learning_rate=1e30")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "train.learning_rate" in result.stderr
    assert read_json(place / "run" / "run.json")["status"].startswith("failed: ")


def test_a_disk_that_fills_up_loses_no_round(silotune, place, monkeypatch):
    assert silotune("run", "small.yaml", "--output-dir", "whole").exit_code == 0
    write, left = files.write_all, [10]

    def full(descriptor, data):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", full)
        result = silotune("run", "small.yaml")
    assert result.exit_code == 1
    assert "No space left on device; free some space" in result.stderr
    assert f"continue with: silotune run {place / 'run'} --resume" in result.stdout
    assert read_lines(place / "run" / "metrics.jsonl")
    folder = RunFolder(place / "run")
    assert read_facts(folder).status == "running", "nor could that be written"
    assert standing(folder, read_facts(folder)).startswith("cut short; continue it with --resume")
    with held(folder):
        assert standing(folder, read_facts(folder)) == "running"
    assert silotune("run", "small.yaml", "--resume").exit_code == 0
    ends = [place / name / "adapter" / "adapter_model.safetensors" for name in ("run", "whole")]
    assert ends[0].read_bytes() == ends[1].read_bytes()


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="nobody tells a descriptor's file")
@pytest.mark.parametrize("name", some(["metrics.jsonl", "state.bin", "report.html"], "report.html"))
def test_a_disk_without_room_for_one_file_is_the_status(silotune, place, monkeypatch, name):
    write = files.write_all

    def full(descriptor, data):
        begun = (place / "run" / "run.json").exists()  # a start that fails leaves nothing
        if begun and name in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", full)
        result = silotune("run", "small.yaml", ONE)
    assert result.exit_code == 1
    status = read_json(place / "run" / "run.json")["status"]
    assert status.startswith("failed: ")
    assert f"{name}: No space left on device; free some space" in status
    assert silotune("run", "small.yaml", ONE, "--resume").exit_code == 0
    assert read_json(place / "run" / "run.json")["status"] == "finished"


def test_a_second_run_is_told_who_has_the_folder(silotune, place):
    other = (place / "small.yaml").read_text().replace("num_rounds: 3", "num_rounds: 4")
    (place / "run").mkdir()
    (place / "run" / "config.yaml").write_text(other)
    with held(RunFolder(place / "run")):
        for words in ((), ("--resume",)):
            result = silotune("run", "small.yaml", *words)
            assert result.exit_code == 1
            assert f"run (process {os.getpid()} on " in result.stderr
            assert ", since 20" in result.stderr


def test_the_reason_of_a_private_failure_is_told_where_the_silo_is(
    silotune, place, monkeypatch, caplog
):
    write = store.write_all

    def full(descriptor, data):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("round-000001.draft"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_all", full)
        result = silotune("run", "small.yaml", *PRIVATE)
    assert result.exit_code == 1
    assert "east, round 1: No space left on device; more is in" in caplog.text
    assert "east: it refused or failed; the reason stays at the silo" in result.stderr
    assert "whole rounds are kept: 1 of 3" in result.stdout
    assert silotune("run", "small.yaml", *PRIVATE, "--resume").exit_code == 0
    rounds = read_lines(place / "run" / "metrics.jsonl")
    assert [line["round"] for line in rounds] == [-1, 0, 1, 2]


@pytest.mark.usefixtures("hearing")
def test_a_signal_ends_a_run_as_ctrl_c_does(silotune, place, monkeypatch):
    def hang_up(records, *_):
        for record in records:
            if record.round == 1:
                signal.raise_signal(signal.SIGHUP)

    with monkeypatch.context() as patch, heard():
        patch.setattr("silotune.cli.run.watch_rounds", hang_up)
        result = silotune("run", "small.yaml")
    assert result.exit_code == 129
    assert "interrupted by SIGHUP; whole rounds are kept: 2 of 3. Continue with" in result.stdout
    assert read_json(place / "run" / "run.json")["status"] == "stopped: interrupted by SIGHUP"


def test_a_spent_budget_ends_the_run_with_its_result_and_1(silotune, place, monkeypatch):
    def overspend(records, *_):
        for record in records:
            if record.round == 0:
                charge_again(place / "run" / "sites" / "west" / "ledger.jsonl", 3)

    monkeypatch.setattr("silotune.cli.run.watch_rounds", overspend)
    result = silotune("run", "small.yaml", *BUDGET)
    assert result.exit_code == 1
    assert "error: the privacy budget of west is spent" in result.stderr
    assert "after 1 round" in result.stdout
    assert (place / "run" / "report.html").is_file()
    assert read_json(place / "run" / "run.json")["status"].startswith("stopped: the privacy budget")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's own
def test_peft_agrees_with_evaluate(silotune, place, bert):
    parts = place / "parts"
    parts.mkdir()
    for part, seed in (("train", 0), ("valid", 1), ("test", 2)):
        write_csv(parts / f"{part}.csv", notes(seed=seed))
    assert silotune("run", "small.yaml", f"data.path={parts}").exit_code == 0
    found = json.loads(silotune("evaluate", "run", "--json").stdout)
    assert found["split"] == "test"
    base = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2)
    model = PeftModel.from_pretrained(base, place / "run" / "adapter").eval()
    records = notes(seed=2)
    batch = AutoTokenizer.from_pretrained(bert)(
        [record["text"] for record in records], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        guessed = model(**batch).logits.argmax(dim=-1).tolist()
    right = [["cat", "dog"][i] == r["label"] for i, r in zip(guessed, records, strict=True)]
    assert found["metrics"]["accuracy"] == pytest.approx(sum(right) / len(right))
    assert found["metrics"] == pytest.approx(read_json(place / "run" / "run.json")["final"])


def test_export_writes_a_new_folder(silotune, place):
    silotune("run", "small.yaml", ONE)
    assert silotune("export", "run", "--output", "adapter").exit_code == 0
    result = silotune("export", "run", "--format", "merged", "--output", "model")
    assert (result.exit_code, result.stderr) == (0, ""), "nobody else's bars and reports"
    assert (place / "model" / "README.md").is_file()
    assert (place / "model" / "config.json").is_file()
    result = silotune("export", "run", "--format", "merged", "--output", "model")
    assert result.exit_code == 1
    assert "exists already" in result.stderr


def test_a_terminal_gets_a_bar_that_says_it_all():
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=140)
    records = [
        RoundRecord(round=-1, metrics={"accuracy": 0.25}),
        RoundRecord(
            round=0,
            seconds=2.0,
            bytes_up=1500,
            bytes_down=2500,
            metrics={"accuracy": 0.5},
            epsilon={"a": 1.234},
            missing={"b": "no answer in time"},
        ),
    ]
    watch_rounds(records, Watch(rounds=2, done=0, metric="accuracy", budget=6.0), console)
    said = screen.getvalue()
    for words in ("1/2", "accuracy 50.0 %", "ε 1.24 of 6", "1.5 kB up", "without b (no answer in"):
        assert words in said
