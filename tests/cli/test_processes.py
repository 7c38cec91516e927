"""What only whole processes show: being killed, being interrupted, and a pool of workers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from covering import full
from silotune.core.files import read_json, read_lines

LONG = ("train.num_rounds=30", "train.threads=1")


def weights(folder: str) -> bytes:
    return (Path(folder) / "adapter" / "adapter_model.safetensors").read_bytes()


def started(*words: str, stdout=subprocess.PIPE, stderr=subprocess.PIPE) -> subprocess.Popen[str]:
    """``silotune`` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "silotune", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=stdout,
        stderr=stderr,
        text=True,
    )


def wait_for_rounds(process: subprocess.Popen[str], folder: str, rounds: int) -> None:
    metrics = Path(folder) / "metrics.jsonl"
    while process.poll() is None:
        if metrics.exists() and metrics.read_text().count("\n") > rounds:
            return
        time.sleep(0.01)
    pytest.fail(f"it ended by itself: {process.communicate()}")


@pytest.mark.parametrize(
    ("how", "code", "status"),
    [
        full(signal.SIGKILL, -9, "running"),
        full(signal.SIGINT, 130, "stopped: interrupted"),
        full(signal.SIGTERM, 143, "stopped: interrupted by SIGTERM"),
        full(signal.SIGHUP, 129, "stopped: interrupted by SIGHUP"),
    ],
)
@pytest.mark.usefixtures("hearing")
def test_a_killed_run_ends_in_the_same_bits(silotune, place, how, code, status):
    process = started("run", "small.yaml", *LONG)
    wait_for_rounds(process, "run", 3)
    second = silotune("run", "small.yaml", *LONG, "--resume")
    assert second.exit_code == 1
    assert f"{place / 'run'} (process {process.pid} on " in second.stderr
    process.send_signal(how)
    said, complaints = process.communicate(timeout=60)
    assert process.returncode == code, complaints
    assert read_json(Path("run/run.json"))["status"] == status
    if how != signal.SIGKILL:
        assert f"{status.removeprefix('stopped: ')}; whole rounds are kept: " in said
        assert " of 30. Continue with: silotune run" in said
        assert "Traceback" not in complaints
    result = silotune("run", "small.yaml", *LONG, "--resume")
    assert result.exit_code == 0
    done = int(result.stdout.partition("continuing after round ")[2].split()[0])
    assert 2 <= done < 30
    assert silotune("run", "small.yaml", *LONG, "--output-dir", "whole").exit_code == 0
    assert weights("run") == weights("whole")


def nobody_reads() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.full
@pytest.mark.parametrize(
    ("open_screen", "code", "why"),
    [
        (nobody_reads, 141, ""),
        (lambda: os.open("/dev/full", os.O_WRONLY), 74, "No space left on device"),
    ],
    ids=["| head", ">/dev/full"],
)
def test_a_run_that_nobody_hears_goes_on(silotune, place, open_screen, code, why):
    screen = open_screen()
    process = started("run", "small.yaml", "train.num_rounds=3", stdout=screen)
    _, complaints = process.communicate(timeout=120)
    os.close(screen)
    assert process.returncode == code
    assert (f"error: stdout: {why}; the command went on to its end" in complaints) == bool(why)
    assert ("error: " in complaints) == bool(why)
    assert read_json(Path("run/run.json"))["status"] == "finished"
    screen = open_screen()
    process = started("evaluate", "run", stdout=screen, stderr=screen)
    assert process.wait(timeout=120) == code
    os.close(screen)


def told(folder: str) -> list[object]:
    """All that a run says of what was trained and scored, wherever that was."""
    rounds = [{**line, "seconds": 0} for line in read_lines(Path(folder) / "metrics.jsonl")]
    facts = read_json(Path(folder) / "run.json")
    return [*rounds, *(facts[key] for key in ("baselines", "final", "scored", "status"))]


@pytest.mark.full
def test_a_pool_trains_and_scores_to_the_same_bits(silotune, place):
    """Rounds, scores of each silo's own records, shared out, and each silo alone."""
    common = ("train.num_rounds=2", "train.threads=1", "baselines=[silo-alone]")
    common += ("train.per_device_eval_batch_size=1",)  # so that there is something to share out
    result = silotune("run", "small.yaml", *common, "runtime=pool", "workers=2", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["status"] == "finished"
    assert silotune("run", "small.yaml", *common, "--output-dir", "whole").exit_code == 0
    assert weights("run") == weights("whole")
    assert told("run") == told("whole")
    assert len(told("run")[3]["silo-alone"]) == 2


@pytest.mark.full
def test_a_pool_is_killed_and_goes_on_to_the_same_bits(silotune, place):
    long = (*LONG, "runtime=pool", "workers=1")
    process = started("run", "small.yaml", *long)
    wait_for_rounds(process, "run", 3)
    process.kill()
    process.communicate(timeout=60)
    result = silotune("run", "small.yaml", *long, "--resume")
    assert result.exit_code == 0, result.output
    assert silotune("run", "small.yaml", *LONG, "--output-dir", "whole").exit_code == 0
    assert weights("run") == weights("whole")


def test_a_worker_that_cannot_start_is_an_error_in_words(silotune, place, monkeypatch):
    monkeypatch.setattr("silotune.cli.run.SILOTUNE", (sys.executable, "-c", "raise SystemExit(1)"))
    result = silotune("run", "small.yaml", "runtime=pool")
    assert result.exit_code == 1
    assert "a worker is given up: it died 3 times in a row" in result.stderr
    assert read_json(Path("run/run.json"))["status"].startswith("failed: a worker is given up")
