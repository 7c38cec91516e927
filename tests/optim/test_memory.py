"""What an optimiser remembers is taken out and put back, also where a pair is factored anew."""

import pytest
import torch

from optim.small_pairs import SCALE, difference, pairs, refactored, train
from silotune.core import pack, unpack
from silotune.optim import (
    AltLoRAConfig,
    FedProxConfig,
    LoRAFAConfig,
    LoRAPlusConfig,
    LoRAProConfig,
    LoRARITEConfig,
    LowPassConfig,
)
from silotune.optim.memory import apart, remembered, remind, together

B_THEN_A = (("B",), ("A",))
CHOICES = {
    "rite": (LoRARITEConfig(lr=0.02), (("A", "B"),)),
    "rite with escape": (LoRARITEConfig(lr=0.02, escape=True), (("A", "B"),)),
    "pro": (LoRAProConfig(lr=0.02, scale=SCALE), (("A", "B"),)),
    "pro with full moments": (
        LoRAProConfig(lr=0.02, scale=SCALE, full_moments=True, damping=0.0),
        (("A", "B"),),
    ),
    "alt": (AltLoRAConfig(lr=0.02, scale=SCALE, damping=0.0), B_THEN_A),
    "alt plus": (AltLoRAConfig(lr=0.02, scale=SCALE, damping=0.0, square=0.99), B_THEN_A),
    "plus": (LoRAPlusConfig(lr=0.02), (("A", "B"),)),
    "fa": (LoRAFAConfig(lr=0.02, scale=SCALE), (("B",),)),
}


def both(choice, phases, turned, *, forget=False):
    """Products of ten steps in one go, and with the memory carried over after four of them."""
    whole = pairs()
    at_once = train(choice.build(whole, choice.lr), whole, 10, phases)
    first = pairs()
    before = choice.build(first, choice.lr)
    parts = train(before, first, 4, phases)
    tensors, numbers = apart(remembered(before, first))
    then = turned(first)
    after = choice.build(then, choice.lr)
    arrived, header = unpack(pack(tensors, {"numbers": numbers}))
    if not forget:
        remind(after, then, together(arrived, header["numbers"]))
    return difference([*parts, *train(after, then, 6, phases)], at_once)


def copied(tensors):
    return {key: torch.nn.Parameter(p.detach().clone()) for key, p in tensors.items()}


@pytest.mark.parametrize("name", CHOICES)
def test_it_goes_on_to_the_bit(name):
    assert both(*CHOICES[name], copied) == 0.0
    assert both(*CHOICES[name], copied, forget=True) > 1e-4, "or nothing was shown"


@pytest.mark.parametrize("name", CHOICES)
def test_memory_is_basis_free_where_that_is_claimed_and_nowhere_else(name):
    choice, phases = CHOICES[name]
    if name == "fa":  # A is public and never turned in a run of its own
        assert not choice.basis_free
        return
    off = both(choice, phases, refactored)
    forgotten = both(choice, phases, refactored, forget=True)
    assert (off < 0.1 * forgotten) == choice.basis_free


@pytest.mark.parametrize("name", ["rite", "rite with escape", "alt"])
def test_steps_that_no_factorisation_changes_go_on_as_if_there_had_been_none(name):
    assert both(*CHOICES[name], refactored) < 1e-9


def test_what_stands_around_an_optimiser_says_what_it_says():
    for choice in (LoRARITEConfig(lr=0.1), LoRAPlusConfig(lr=0.1)):
        assert FedProxConfig(LowPassConfig(choice), 0.1).basis_free == choice.basis_free
