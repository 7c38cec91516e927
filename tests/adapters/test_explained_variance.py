"""Directions in which inputs vary most, against the singular vectors of all of them."""

import pytest
import torch
from torch import nn

from silotune.adapters.explained_variance import Inputs, watching


def read(rows: torch.Tensor, *parts: int) -> Inputs:
    inputs = Inputs.none(rows.shape[1])
    for part in rows.split(list(parts) or [len(rows)]):
        inputs.add(part)
    return inputs


def numbers(n: int, features: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    mixed = torch.randn(features, features, generator=g)
    return torch.randn(n, features, generator=g) @ mixed + torch.randn(features, generator=g) * 5


@pytest.mark.parametrize(("n", "features", "rank"), [(40, 9, 3), (7, 11, 5), (300, 6, 6)])
def test_they_are_the_singular_vectors_of_all_that_was_read(n, features, rank):
    rows = numbers(n, features)
    found = read(rows).directions(rank)
    centred = rows.double() - rows.double().mean(0)
    _, s, v = torch.linalg.svd(centred, full_matrices=False)
    cosines = (found.a.double() @ v[:rank].T).diagonal().abs()
    assert torch.allclose(cosines, torch.ones(rank).double(), atol=1e-6)
    assert torch.allclose(found.a @ found.a.T, torch.eye(rank), atol=1e-6)
    assert found.explained == pytest.approx(float(s[:rank].square().sum() / s.square().sum()))


def test_how_they_come_in_parts_changes_nothing():
    rows = numbers(60, 8)
    whole, parts = read(rows).directions(4), read(rows, 1, 20, 39).directions(4)
    assert torch.allclose(whole.a, parts.a, atol=1e-6)


def test_each_is_signed_by_its_largest_entry():
    a = read(numbers(50, 7)).directions(4).a
    assert (a.gather(1, a.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("rows", [numbers(3, 9), torch.ones(50, 9)])
def test_too_few_directions_are_refused(rows):
    with pytest.raises(ValueError, match=r"varies in \d directions, fewer than r = 4"):
        read(rows).directions(4)


def test_what_layers_read_is_watched_only_while_it_is_asked():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    rows = numbers(20, 5).reshape(4, 5, 5)
    with watching({"first": model[0], "last": model[2]}, {"first": 5, "last": 7}) as sums:
        model(rows)
    model(rows)
    hidden = torch.tanh(model[0](rows)).detach().double().reshape(-1, 7)
    assert sums["first"].count == sums["last"].count == 20
    assert torch.allclose(sums["last"].products, hidden.T @ hidden)
