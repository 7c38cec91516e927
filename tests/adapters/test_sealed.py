"""Tensors in a file that says what they were: anybody reads it, and damage is seen."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from silotune.adapters.sealed import sealed, unsealed

TENSORS = {
    "base.lora_B.weight": torch.randn(5, 2),
    "base.lora_A.weight": torch.randn(2, 3, dtype=torch.float64),
    "head.bias é": torch.ones(3, dtype=torch.bfloat16),
}


def equal(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], tensor) for name, tensor in expected.items()
    )


def test_what_was_sealed_comes_back_in_the_order_of_names():
    found = unsealed(sealed(TENSORS))
    assert equal(found, TENSORS)
    assert list(found) == sorted(TENSORS)


def test_equal_tensors_are_equal_bytes():
    assert {sealed(TENSORS) for _ in range(20)} == {sealed(dict(reversed(TENSORS.items())))}


def test_it_is_a_file_like_any_other(tmp_path):
    path = tmp_path / "some.safetensors"
    path.write_bytes(sealed(TENSORS))
    assert equal(load(path.read_bytes()), TENSORS)
    with safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"


def test_a_file_of_others_is_read_as_it_is():
    assert equal(unsealed(save(TENSORS, metadata={"format": "pt"})), TENSORS)


@pytest.mark.parametrize("back", range(1, 40, 7))
def test_a_number_that_was_changed_is_seen(back):
    data = bytearray(sealed(TENSORS))
    data[-back] ^= 1
    with pytest.raises(ValueError, match="not what was saved"):
        unsealed(bytes(data))
