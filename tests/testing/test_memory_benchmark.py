"""The benchmark of memory counts a step by its shapes alone as it counts one that runs."""

import pytest
from benchmarks.memory import ARMS, MODELS, Case, counted_by_shapes, decoder, peak_bytes

CASE = Case("tiny", "all-linear", "LoRA", 4, records=3, tokens=16)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing")
@pytest.mark.parametrize("arm", ARMS)
def test_a_step_is_counted_by_its_shapes_as_it_runs(arm):
    step = ARMS[arm](CASE, MODELS.get(arm, decoder)(CASE), silent=True)
    ran, shapes = peak_bytes(step), counted_by_shapes(CASE, arm)
    assert abs(ran - shapes) < 0.1 * ran
