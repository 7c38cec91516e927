"""Where records lie in what linear maps read, and which of these a loss depends on."""

import pytest
import torch
from torch import nn

from silotune.core import LEADING, RecordAxis
from silotune.models.probe import LENGTHS, probe

T, IN, PARTS = 4, 6, 2


class Reads(nn.Module):
    """Lays its records out in some way before a linear map reads them, and undoes it behind."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.map, self.last = nn.Linear(IN, IN), nn.Linear(IN, 1)
        self.unused, self.multiplied = nn.Linear(IN, IN), nn.Linear(IN, IN)
        self.positions = nn.Parameter(torch.randn(1, T, IN))
        self.requires_grad_(False)

    def laid(self, x):
        n = len(x)
        return {
            "leading": lambda: x,
            "flattened": lambda: x.reshape(n * T, IN),
            "windows": lambda: x.reshape(n * PARTS, T // PARTS, IN),
            "records inside": lambda: x.reshape(n, PARTS, -1, IN).transpose(0, 1).flatten(0, 1),
            "positions first": lambda: x.transpose(0, 1),
            "broadcast": lambda: self.positions,
            "of the batch": lambda: x - x.mean(dim=0),
            "chosen": lambda: x.reshape(-1, IN)[x.reshape(-1, IN)[:, 0] > 0],
        }[self.kind]()

    def forward(self, x):
        self.unused(x)
        y = self.map(self.laid(x))
        return self.last(x).flatten(1).sum(1) * y.square().sum() + 0 * self.multiplied(x).sum()


def losses(model, batch):
    return model(batch["x"])


def probed(kind):
    torch.manual_seed(0)
    names = ["map", "last", "unused", "multiplied"]
    return probe(Reads(kind), names, losses, {"x": torch.randn(len(LENGTHS), T, IN)})


FOUND = {
    "leading": LEADING,
    "flattened": RecordAxis(0, "outer"),
    "windows": RecordAxis(0, "outer"),
    "records inside": RecordAxis(0, "inner"),
    "positions first": RecordAxis(1),
}


@pytest.mark.parametrize("kind", FOUND)
def test_finds_where_records_lie(kind):
    assert probed(kind).records["map"] == FOUND[kind]


@pytest.mark.parametrize("kind", ["broadcast", "of the batch", "chosen"])
def test_says_nothing_of_what_is_not_by_record(kind):
    found = probed(kind)
    assert "map" not in found.records
    assert found.records["last"] == LEADING
    assert "map" in found.used


def test_a_module_without_a_gradient_is_not_used():
    """Its output goes nowhere, or is multiplied by zero."""
    assert probed("leading").used == {"map", "last"}


class Relative(nn.Module):
    """As DeBERTa: one map reads records, and positions that all records share."""

    def __init__(self):
        super().__init__()
        self.query = nn.Linear(IN, IN).requires_grad_(False)
        self.positions = nn.Parameter(torch.randn(1, T, IN), requires_grad=False)

    def forward(self, x):
        return (self.query(x) @ self.query(self.positions).mT).flatten(1).sum(1)


def test_a_module_that_reads_both_records_and_what_they_share_is_not_by_record():
    batch = {"x": torch.randn(len(LENGTHS), T, IN)}
    found = probe(Relative(), ["query"], losses, batch)
    assert not found.records
    assert found.used == {"query"}


class OverwritesInEvaluation(Reads):
    """As RWKV rescales in place what a gradient would need, where none is made."""

    def forward(self, x):
        y = super().forward(x).exp()
        return y if self.training else y.mul_(2).exp().add_(y.mul_(3))


def test_a_model_is_probed_as_it_trains():
    model = OverwritesInEvaluation("leading").eval()
    found = probe(model, ["map"], losses, {"x": 0.1 * torch.randn(len(LENGTHS), T, IN)})
    assert found.used == {"map"}
    assert not model.training


def test_the_model_is_left_as_it_was():
    model = Reads("leading")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    probe(model, ["map"], losses, {"x": torch.randn(len(LENGTHS), T, IN)})
    assert not model.map._forward_hooks
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    torch.testing.assert_close(model.state_dict(), before)
