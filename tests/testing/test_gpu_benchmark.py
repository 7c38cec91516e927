"""The benchmark for machines with a GPU runs on a CPU, so that a GPU's minutes go into figures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny"]


@pytest.mark.slow
def test_it_runs_and_is_right():
    told = subprocess.run(
        COMMAND, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    found = json.loads(told.stdout.splitlines()[-1])
    assert found["right"]["float32"]["single gradients"] < 1e-5
    assert found["right"]["float32"]["sum"] < 1e-4
    assert 1e-4 < found["right"]["bfloat16"]["single gradients"] < 0.1
    tiny = found["shapes"]["tiny"]
    assert {"limit", "PEFT", "ours private", "ours private, one by one"} <= tiny["2"].keys()
    assert tiny["noise"].keys() >= {"drawn on a grid", "drawn in floating point", "copied"}
