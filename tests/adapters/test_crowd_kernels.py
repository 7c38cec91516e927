"""Layers whose records meet tensors of their own, against a layer of each client's by autograd."""

import pytest
import torch
from torch import nn

from silotune.adapters import Head, LoRA, LoRASB
from silotune.core import Crowd, PerExampleGradients, RecordAxis, Role, Site
from silotune.core.forward_context import Context
from silotune.privacy.mechanisms.clipping import clipped_sum, clipped_sums

N, PARTS, T, IN, OUT, CLIENTS = 4, 2, 3, 6, 5, 3
OWNERS = torch.tensor([2, 0, 2, 1])
LAYOUTS = {
    "records first": ((N, T, IN), RecordAxis()),
    "pooled": ((N, IN), RecordAxis()),
    "windows": ((N * PARTS, T, IN), RecordAxis(0, "outer")),
    "positions first": ((T, N, IN), RecordAxis(1)),
    "parts before records": ((T, PARTS * N, IN), RecordAxis(1, "inner")),
}
TRAINED = {
    "one factor": {Role.B},
    "the other": {Role.A},
    "pairs": {Role.A, Role.B},
    "core": {Role.R},
    "head": {Role.HEAD},
}


def layer(kind, records, sink):
    """In float64, its base of another shape than square, alpha/r of 1.5."""
    torch.manual_seed(0)
    base = nn.Linear(IN, OUT, dtype=torch.float64).requires_grad_(False)
    site = Site("q", base, IN, OUT, records=records)
    if kind == "head":
        made = Head(site, 1.5, sink).double()
    else:
        adapter = LoRASB(rank=2, alpha=3.0) if kind == "core" else LoRA(rank=2, alpha=3.0)
        made = adapter.layers([site], sink, Context())["q"]
    for key, parameter in made.tensors().items():
        nn.init.normal_(parameter)
        parameter.requires_grad_(key.role in TRAINED[kind])
    return made


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", TRAINED)
def test_every_record_meets_the_tensors_of_its_own_client(kind, layout):
    shape, records = LAYOUTS[layout]
    sink = PerExampleGradients()
    made = layer(kind, records, sink)
    tensors = {key: p for key, p in made.tensors().items() if p.requires_grad}
    own = {key: torch.randn(CLIENTS, *p.shape, dtype=p.dtype) for key, p in tensors.items()}
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    with sink.collect(N, Crowd(own, OWNERS)) as rows:
        y = made(x)
        y.square().sum().backward()
    found, whole = {key: r.clone() for key, r in rows.items()}, x.grad
    for record, client in enumerate(OWNERS.tolist()):
        with torch.no_grad():
            for key, p in tensors.items():
                p.copy_(own[key][client])
                p.grad = None
        x.grad = None
        mine = made(x)
        records.rows(mine, N)[record].square().sum().backward()
        torch.testing.assert_close(records.rows(y, N)[record], records.rows(mine, N)[record])
        for key, p in tensors.items():
            torch.testing.assert_close(found[key][record], p.grad)
        torch.testing.assert_close(records.rows(whole, N)[record], records.rows(x.grad, N)[record])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_put_back_where_they_were(layout):
    shape, records = LAYOUTS[layout]
    x = torch.randn(shape)
    torch.testing.assert_close(records.back(records.rows(x, N), shape[:-1]), x)


@pytest.mark.parametrize("grids", [(0.0, 0.0, 0.0), (2.0**-10, 2.0**-12, 2.0**-11)])
def test_the_sum_of_each_client_is_that_of_its_records_alone(grids):
    """Of one nothing was drawn, norms differ, and one record is not finite."""
    norms, grids = torch.tensor([0.3, 2.0, 0.7]), torch.tensor(grids, dtype=torch.float64)
    owners = torch.tensor([2, 0, 2, 0, 2])
    rows = {"B": torch.randn(5, 4, 2), "head": torch.randn(5, 3)}
    rows["head"][4, 1] = torch.inf
    sums, dropped = clipped_sums(rows, owners, norms, grids)
    assert dropped.tolist() == [0, 0, 1]
    assert not any(total[1].any() for total in sums.values())
    for client in (0, 2):
        of_it = {key: r[owners == client] for key, r in rows.items()}
        alone, _ = clipped_sum(of_it, float(norms[client]), float(grids[client]))
        for key, total in alone.items():
            exact = {"rtol": 0, "atol": 0} if grids.any() else {}
            torch.testing.assert_close(sums[key][client].to(total), total, **exact)
