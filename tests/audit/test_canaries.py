"""Canaries move what they are said to move, through the layers' own kernels."""

import pytest
import torch

from silotune.adapters import DoRA, LoRASB
from silotune.audit.canaries import (
    CanaryObjective,
    Strengthened,
    Subset,
    away_from_zero,
    probed_layers,
    random_probes,
    silent,
    slots,
    tensor_probe,
)
from silotune.core import Role
from silotune.privacy.mechanisms.clipping import clipped_sum
from toys import CLASSES, INNER, WIDTH, adapted, adapter, first_factors


def planted(roles, most: int = 1000):
    model = adapted(adapter())
    model.load(first_factors(adapter()))
    g = torch.Generator().manual_seed(0)
    found = slots(model, first_factors(adapter()), roles, most, strength=1000.0, g=g)
    return model, found


def rows(model, examples, indices, roles):
    model.train_only(roles)
    batch = examples.batch(indices)
    with model.sink.collect(len(indices)) as left:
        CanaryObjective(probed_layers(model, roles)).losses(model.model, batch).sum().backward()
        return dict(left)


def flat(sums):
    return {key: t.flatten().double().numpy() for key, t in sums.items()}


def gradient(model, layers, record, roles):
    """By autograd, with the sink closed."""
    tensors = model.train_only(roles)
    CanaryObjective(layers).losses(model.model, record).sum().backward()
    return {key: float(p.grad.norm()) for key, p in tensors.items()}


@pytest.mark.parametrize("key", [k for k in first_factors(adapter()) if k.role is not Role.D])
def test_a_tensors_canary_moves_that_tensor_alone(key):
    model, start = adapted(adapter()), away_from_zero(first_factors(adapter()))
    model.load(start)
    layers = probed_layers(model, set(Role))
    record = tensor_probe(layers, key, start, torch.Generator().manual_seed(1))
    lengths = gradient(model, layers, record, set(Role))
    own = lengths.pop(key)
    assert own > 0
    assert max(lengths.values()) < 2e-4 * own


def test_silent_records_have_no_gradient_at_all():
    model = adapted(adapter())
    model.load(away_from_zero(first_factors(adapter())))
    layers = probed_layers(model, set(Role))
    records = silent(random_probes(layers, 1, torch.Generator().manual_seed(1)), 5)
    assert list(records.lengths) == [1] * 5
    tensors = model.train_only(set(Role))
    objective = Strengthened(CanaryObjective(layers))
    objective.losses(model.model, records.batch([0, 3])).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in tensors.values())


def test_there_is_a_slot_for_every_number_of_b_and_of_the_heads_weight():
    _, found = planted({Role.B, Role.HEAD})
    assert len(found.lengths) == 2 * (INNER + WIDTH) + CLASSES * WIDTH
    places = torch.stack([found.layer, found.row, found.column], dim=1)
    assert len(places.unique(dim=0)) == len(places)


@pytest.mark.parametrize("roles", [{Role.B}, {Role.HEAD}, {Role.B, Role.HEAD}, set(Role)])
def test_a_clipped_canary_moves_its_own_slot_by_c_and_nothing_else(roles):
    model, found = planted(roles)
    m = len(found.lengths)
    for i in range(m):
        sums, dropped = clipped_sum(rows(model, found, [i], roles), 1.0)
        moved = found.read(flat(sums))
        assert dropped == 0
        assert moved[i] == pytest.approx(1.0, abs=2e-3)
        moved[i] = 0.0
        assert moved.abs().max() < 1e-3


def test_a_core_has_a_canary_for_each_number_and_one_for_itself():
    """R moves alone between frozen factors: through B^T times what returns and A times x."""
    core = LoRASB(rank=3, alpha=6.0)
    model, start = adapted(core), first_factors(core)
    model.load(start)
    found = slots(model, start, {Role.R}, 1000, strength=1000.0, g=torch.Generator())
    assert len(found.lengths) == 2 * 3 * 3
    for i in range(len(found.lengths)):
        sums, _ = clipped_sum(rows(model, found, [i], {Role.R}), 1.0)
        moved = found.read(flat(sums))
        assert moved[i] == pytest.approx(1.0, abs=2e-3)
        moved[i] = 0.0
        assert moved.abs().max() < 1e-3
    layers = probed_layers(model, {Role.R})
    for key in start.only({Role.R}):
        record = tensor_probe(layers, key, start, torch.Generator().manual_seed(1))
        model.model.zero_grad()
        lengths = gradient(model, layers, record, {Role.R})
        assert lengths.pop(key) > 0
        assert not any(lengths.values())


def test_canaries_in_a_batch_move_their_own_slots():
    model, found = planted({Role.B, Role.HEAD})
    some = list(range(0, len(found.lengths), 3))
    sums, _ = clipped_sum(rows(model, found, some, {Role.B, Role.HEAD}), 1.0)
    expected = torch.zeros(len(found.lengths), dtype=torch.float64)
    expected[some] = 1.0
    torch.testing.assert_close(found.read(flat(sums)), expected, atol=5e-3, rtol=0)


def test_fewer_canaries_than_slots_are_spread_over_them():
    _, found = planted({Role.B, Role.HEAD}, most=12)
    assert len(found.lengths) == 12
    assert len(found.layer.unique()) > 1


def test_a_method_that_trains_neither_cannot_be_probed():
    with pytest.raises(ValueError, match="trains B or a head"):
        planted({Role.A})


def test_chosen_examples_keep_their_own_numbers():
    _, found = planted({Role.B})
    chosen = Subset(found, [5, 2, 9])
    assert list(chosen.lengths) == [1, 1, 1]
    own, all_ = chosen.batch([2, 0]), found.batch([9, 5])
    assert own.keys() == all_.keys()
    assert all(torch.equal(own[key], all_[key]) for key in own)


def test_lengths_have_a_canary_for_each_number_and_each_tensor_beside_them_one():
    """DoRA: rows that are turned and stretched, seen one tensor at a time."""
    dora = DoRA(pair=adapter())
    model, start = adapted(dora), first_factors(dora)
    model.load(start)
    roles = {Role.A, Role.B, Role.M}
    found = slots(model, start, roles, 1000, strength=1000.0, g=torch.Generator())
    assert len(found.lengths) == INNER + WIDTH
    for i in range(len(found.lengths)):
        sums, _ = clipped_sum(rows(model, found, [i], roles), 1.0)
        moved = found.read(flat(sums))
        assert moved[i] == pytest.approx(1.0, abs=2e-3)
        moved[i] = 0.0
        assert moved.abs().max() < 1e-3
    start = away_from_zero(start)
    model.load(start)
    layers = probed_layers(model, roles)
    for key in start.only(roles):
        record = tensor_probe(layers, key, start, torch.Generator().manual_seed(1))
        model.model.zero_grad()
        lengths = gradient(model, layers, record, roles)
        own = lengths.pop(key)
        assert own > 1e-2
        assert all(other < 1e-3 * own for other in lengths.values())
