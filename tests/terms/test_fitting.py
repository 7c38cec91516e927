"""``micro_batch_size: auto``: what is measured, what fits, and that it decides nothing but time."""

import pytest
import torch

from silotune.core.tensor_memory import TensorMemory, free_bytes, peak_bytes
from silotune.terms import Machine
from silotune.terms.fitting import MOST, SHARE
from silotune.terms.fitting import fitting as fits

GB = 10**9


@pytest.mark.parametrize(
    ("one", "two", "free", "expected"),
    [
        (1 * GB, 2 * GB, 10 * GB, 4),  # seven fit
        (1 * GB, 2 * GB, 1 * GB, 0),
        (7 * GB, 8 * GB, 10 * GB, 1),
        (5 * GB, 5 * GB, 100 * GB, MOST),
        (1, 2, 100 * GB, MOST),
    ],
)
def test_the_largest_power_of_two_that_fits(one, two, free, expected):
    assert fits(one, two, free) == expected
    if expected:
        assert one + (expected - 1) * (two - one) <= SHARE * free


def test_tensors_are_counted_while_they_are_alive():
    weight = torch.zeros(10, 10, requires_grad=True)
    with TensorMemory() as memory:
        x = torch.ones(100, 10)
        y = (x @ weight).relu().sum()
        assert memory.held == (1000 + 1000 + 1) * 4  # the product is gone, its relu is kept
        y.backward()
        assert memory.held == (1000 + 100 + 1) * 4
        del x, y
        weight.grad = None
        assert memory.held == 0
    assert memory.most > (1000 + 1000) * 4


def test_what_was_there_before_is_not_counted():
    there = torch.zeros(1000)
    assert peak_bytes(lambda: there.add_(1).view(10, 100).mul_(2)) == 0


def test_a_gpu_is_asked_for_its_own_count(monkeypatch):
    held = iter([500])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: next(held))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1700)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * GB, 8 * GB))
    assert peak_bytes(lambda: None, torch.device("cuda")) == 1200
    assert free_bytes(torch.device("cuda")) == 3 * GB


def test_a_container_leaves_what_its_limit_does(monkeypatch, tmp_path):
    monkeypatch.setattr("silotune.core.tensor_memory.CONTAINER", tmp_path)
    without = free_bytes(torch.device("cpu"))
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 2000\ninactive_file 700\n")
    assert free_bytes(torch.device("cpu")) == 2700
    (tmp_path / "memory.max").write_text("max\n")
    assert without // 2 < free_bytes(torch.device("cpu")) < without * 2


def test_processes_that_would_find_several_numbers_are_refused():
    with pytest.raises(ValueError, match=r"micro_batch_size: auto .* set one"):
        Machine(micro_batch_size="auto").check_processes(in_one_process=False)
    Machine(micro_batch_size="auto").check_processes(in_one_process=True)
    with pytest.raises(ValueError, match="micro_batch_size: must be"):
        Machine(micro_batch_size="all")


def test_what_looks_at_few_records_measures_nothing():
    assert Machine(micro_batch_size="auto").settled().micro_batch_size == 32
    assert Machine(micro_batch_size=5).settled().micro_batch_size == 5
